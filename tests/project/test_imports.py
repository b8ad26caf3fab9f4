"""The import rules hold, and the checker notices when they don't."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def load_checker():
    spec = importlib.util.spec_from_file_location("check_imports", ROOT / "tools" / "check_imports.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rules_hold():
    assert load_checker().check() == []


def test_a_violation_is_found(tmp_path, monkeypatch):
    checker = load_checker()
    hdl, sim = tmp_path / "hdl" / "emplace", tmp_path / "sim" / "emplace_sim"
    (hdl / "ddp").mkdir(parents=True)
    sim.mkdir(parents=True)
    (hdl / "ddp" / "bad.py").write_text("from ..tcp.records import WalkRequest\nimport emplace_sim.inet\n")
    (sim / "model.py").write_text("from emplace.stream.packet import PacketWord\nfrom emplace import abi\n")
    for name, value in (("ROOT", tmp_path), ("HDL", hdl), ("SIM", sim)):
        monkeypatch.setattr(checker, name, value)
    found = "\n".join(checker.check())
    assert "layer ddp imports emplace.tcp.records" in found
    assert "gateware imports emplace_sim" in found
    assert "model imports gateware emplace.stream.packet" in found
    assert "emplace.abi" not in found
