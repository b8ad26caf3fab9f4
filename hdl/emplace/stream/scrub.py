"""Memories that are empty after reset: a reset alone leaves a memory as it was."""

from amaranth.hdl import Module, Signal, Value

__all__ = ["scrub", "scrub_cycles"]

_MARGIN = 8


def scrub(m: Module, write_port, depth: int) -> Signal:
    """Write zeros to all rows of a memory in the first ``depth`` cycles behind every reset.

    Must come behind everything else that drives ``write_port`` in ``m``: the last assignment wins. What others write
    meanwhile is lost, and what is read may be of the time before the reset, so that whoever uses the memory must wait:
    for this signal, or for control, which carries out no command and passes no doorbell on in the first
    :func:`scrub_cycles`.

    Parameters
    ----------
    m : module that drives the port
    write_port : of domain ``sync``
    depth : rows

    Returns
    -------
    ``Signal(1)``
        Not all rows have been written yet.
    """
    scrubbing, row = Signal(init=1), Signal(range(depth), name="scrub_row")
    with m.If(scrubbing):
        m.d.comb += [
            write_port.addr.eq(row),
            Value.cast(write_port.data).eq(0),
            write_port.en.eq((1 << len(write_port.en)) - 1),
        ]
        m.d.sync += [row.eq(row + 1), scrubbing.eq(row != depth - 1)]
    return scrubbing


def scrub_cycles(config) -> int:
    """Cycles behind a reset after which every table of a card is clear; the lookup's has four buckets a QP."""
    return max(config.regions, config.cqs, 4 * config.qps) + _MARGIN
