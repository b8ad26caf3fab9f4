"""The protection unit, wired."""

from amaranth.hdl import Module
from amaranth.lib import memory, stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from ..stream.packet import connect_streams
from ..stream.queue import Queue
from .check import AccessCheck
from .records import AccessReply, AccessRequest, PageWrite, TableResult, TableUpdate
from .table import RegionTable

__all__ = ["Protect"]


class Protect(wiring.Component):
    """Says for every access, remote or local, whether it may be, and where its octets lie (design D5).

    A region's slot is ``stag[8:8 + region_bits]``; all 32 bits of the STag are compared. Regions are
    one physical block, or pages of 2**12..2**30 octets, each aligned to its size, listed in card memory.
    Regions of up to 2**45 octets. See ``AccessCheck`` for the order of the checks and ``RegionTable``
    for those of a registration.

    Throughput: a request every 2 cycles, second bursts included. Latency: 6 cycles to the first reply.
    An INVALIDATE is in effect for the next request.

    Parameters
    ----------
    config : :class:`~emplace.config.NicConfig`
    check, table : classes
        To be replaced by a proof's mutants only.

    Members
    -------
    access : ``In(stream.Signature(AccessRequest(config)))``
    granted : ``Out(stream.Signature(AccessReply()))``
        In the order of the requests; GRANT: one a burst, at most two; else one.
    table : ``In(stream.Signature(TableUpdate()))``
    table_result : ``Out(stream.Signature(TableResult))``
        One an update, after it was taken. Every request taken from then on sees the new entry.
    pages : ``In(stream.Signature(PageWrite(config)))``
        Always taken at once. The driver writes pages before it registers the region.
    """

    def __init__(self, config, *, check=AccessCheck, table=RegionTable):
        self.config = config
        super().__init__({
            "access":       In(stream.Signature(AccessRequest(config))),
            "granted":      Out(stream.Signature(AccessReply())),
            "table":        In(stream.Signature(TableUpdate())),
            "table_result": Out(stream.Signature(TableResult)),
            "pages":        In(stream.Signature(PageWrite(config))),
        })
        # Public to the proof only.
        self.regions = table(config)
        self.check = check(config)
        self.replies = Queue(AccessReply(), 16)
        self.page_list = memory.Memory(shape=52, depth=config.pages, init=[])

    def elaborate(self, platform):
        m = Module()

        m.submodules.regions = regions = self.regions
        m.submodules.check = check = self.check
        m.submodules.replies = replies = self.replies
        m.submodules.page_list = self.page_list
        page_write, page_read = self.page_list.write_port(), self.page_list.read_port()

        connect_streams(m, flipped(self.table), regions.update)
        connect_streams(m, regions.result, flipped(self.table_result))
        connect_streams(m, flipped(self.access), check.access)
        connect(m, replies.o, flipped(self.granted))
        m.d.comb += [
            regions.slot.eq(check.slot), check.entry.eq(regions.entry), check.state.eq(regions.state),
            regions.kill.eq(check.kill), regions.kill_slot.eq(check.kill_slot), regions.quiet.eq(check.quiet),
            check.blocked.eq(regions.busy),
            # At most 4 requests are on their way behind the taken one's back: 2 * 4 + 6 <= 16.
            check.room.eq(replies.level <= 6),
            replies.i.valid.eq(check.reply.valid),
            replies.i.payload.eq(check.reply.payload),
            self.pages.ready.eq(1),
            page_write.en.eq(self.pages.valid),
            page_write.addr.eq(self.pages.p.index),
            page_write.data.eq(self.pages.p.address[12:]),
            page_read.addr.eq(check.page_slot), check.page.eq(page_read.data),
        ]

        return m
