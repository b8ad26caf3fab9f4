"""The build cache, and XGMII and bus models in a simulator, against a loop of wires."""

import multiprocessing

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from emplace_sim import build


class Loop(wiring.Component):
    """What comes in goes out a cycle later: XGMII, and TLPs word by word (so the host talks to itself)."""

    xgmii_rx__d: In(64)
    xgmii_rx__c: In(8)
    xgmii_tx__d: Out(64, init=0x0707070707070707)
    xgmii_tx__c: Out(8, init=0xFF)
    rx_tlp__payload: In(69)
    rx_tlp__valid: In(1)
    rx_tlp__ready: Out(1)
    tx_tlp__payload: Out(69)
    tx_tlp__valid: Out(1)
    tx_tlp__ready: In(1)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += [self.xgmii_tx__d.eq(self.xgmii_rx__d), self.xgmii_tx__c.eq(self.xgmii_rx__c)]
        free = Signal()
        m.d.comb += [free.eq(~self.tx_tlp__valid | self.tx_tlp__ready), self.rx_tlp__ready.eq(free)]
        with m.If(free):
            m.d.sync += [self.tx_tlp__valid.eq(self.rx_tlp__valid), self.tx_tlp__payload.eq(self.rx_tlp__payload)]
        return m


@pytest.mark.cocotb
def test_models():
    build.run_cocotb(Loop(), "loop", "tests.sim.cocotb_models")


def _build(_):
    return build.build(Loop(), "loop").directory.name


@pytest.mark.cocotb
def test_two_processes_build_once():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        names = pool.map(_build, range(2))
    assert len(set(names)) == 1 and (build.BUILD_ROOT / names[0] / "built").exists()


def test_sources_digest():
    assert build._sources() == build._sources() and len(build._digest("a", "b")) == 16
    assert build._digest("a", "b") != build._digest("ab")
