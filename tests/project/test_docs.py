"""Pages that list things list all of them."""

import dataclasses
import re
from pathlib import Path

from emplace import abi
from emplace.config import NicConfig

DOCS = Path(__file__).resolve().parents[2] / "docs"
#: Counters that say that something was too small, or that somebody was turned away for it.
SCARCE = re.compile(r"overflow|no_slot|no_room|no_buffer|refused|parked|held_dropped|oversize|_lease|too_long|was full|is full")


def names(page):
    return set(re.findall(r"`([^`]+)`", (DOCS / page).read_text()))


def test_every_size_has_a_row():
    rows = names("resources.md")
    sizes = {field.name for field in dataclasses.fields(NicConfig) if isinstance(field.default, int)}
    missing = sizes - rows
    assert not missing, f"no row in docs/resources.md for NicConfig.{', '.join(sorted(missing))}"


def test_every_counter_of_something_scarce_has_a_row():
    rows = names("resources.md")
    missing = {c.name for c in abi.COUNTERS if SCARCE.search(f"{c.name} {c.doc}")} - rows
    assert not missing, f"no row in docs/resources.md for the counters {', '.join(sorted(missing))}"


def test_every_name_in_the_table_exists():
    known = {c.name for c in abi.COUNTERS} | {f.name for f in dataclasses.fields(NicConfig)} | {"max_recv_wr"}
    assert names("resources.md") <= known, names("resources.md") - known


def test_every_reason_has_somebody():
    text = (DOCS / "finger-pointing.md").read_text()
    missing = [r.name for r in abi.Reason if r is not abi.Reason.NONE and not re.search(rf"\b{r.name}\b", text)]
    assert not missing, f"docs/finger-pointing.md says nothing of {', '.join(missing)}"


def test_every_counter_of_the_guide_exists():
    known = {c.name for c in abi.COUNTERS}
    found = {name for name in names("finger-pointing.md") if re.fullmatch(r"(rx|tx|guard|err)_\w+", name)}
    assert found <= known, found - known
