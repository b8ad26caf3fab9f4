"""Sphinx settings."""

project = "Emplace"
author = "the Emplace developers"
copyright = "2026, the Emplace developers"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_generated", "_build"]
html_theme = "furo"
html_title = "Emplace"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
