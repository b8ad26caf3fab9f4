"""Memories that answer wrongly when a row is read in the cycle in which it is written, as block RAM may."""

from amaranth.hdl import Module, Shape, Signal, Value
from amaranth.hdl._mem import MemoryInstance
from amaranth.lib.memory import Memory

__all__ = ["spoil_collisions"]


def _elaborate(self, platform):
    m = Module()
    spares = "reads_collide" in self.attrs
    self._frozen = True
    self._data.freeze()
    m.submodules.instance = instance = MemoryInstance(data=self._data, attrs=self.attrs, src_loc=self.src_loc)
    writers = {port: instance.write_port(domain=port.domain, addr=port.addr, data=port.data, en=port.en)
               for port in self.write_ports}
    for port in self.read_ports:
        through = tuple(writers[other] for other in port.transparent_for)
        if port.domain == "comb" or spares:
            instance.read_port(domain=port.domain, data=port.data, addr=port.addr, en=port.en, transparent_for=through)
            continue
        raw, hit = Signal(Shape.cast(self.shape).width), Signal()
        instance.read_port(domain=port.domain, data=raw, addr=port.addr, en=port.en, transparent_for=through)
        collides = Value.cast(0)
        for other in writers:
            if other not in port.transparent_for and other.domain == port.domain:
                collides |= other.en.any() & (other.addr == port.addr)
        with m.If(port.en):
            m.d[port.domain] += hit.eq(collides)
        m.d.comb += Value.cast(port.data).eq(raw ^ hit.replicate(len(raw)))
    return m


def spoil_collisions():
    """From now on every memory that is elaborated inverts what it would say in such a cycle, but for those with the
    attribute ``reads_collide``.

    A design that passes its tests like this may be told to synthesis as one that doesn't mind
    (:mod:`emplace_sim.area`): no logic is spent on such reads.
    """
    Memory.elaborate = _elaborate


def pytest_configure(config):
    """``pytest -p emplace_sim.collide``: all tests of this run."""
    del config
    spoil_collisions()
