"""What the core asks of the bus."""

from amaranth.lib import data, enum

from ..control.records import Token
from ..stream.packet import PacketWord

__all__ = ["PlaceKind", "PlaceCommand", "WriteKind", "WriteCommand", "PlainSource", "PlainWrite", "ReadClient", "READ_CLIENTS",
           "ReadRequest", "ReadWord", "MmioWrite", "MmioRead", "GuardRange"]


class ReadClient(enum.IntEnum, shape=3):
    """Who reads host memory: index of dma's ``reads`` and ``read_data``."""

    CONTROL = 0      # admin commands
    RECEIVE = 1      # receive WQEs
    FRAME_RX = 2     # descriptors of buffers for frames
    FRAME_TX = 3     # frames to send: descriptors and bytes
    SEND = 4         # send WQEs
    PAYLOAD = 5      # what they send


READ_CLIENTS = len(ReadClient)


class PlainSource(enum.IntEnum, shape=1):
    """Who writes to host memory beside queues: index of dma's ``plain`` and ``plain_packets``."""

    FRAME_RX = 0     # received frames and their completions
    FRAME_TX = 1     # heads of the transmit ring


class PlaceKind(enum.Enum, shape=3):
    """Step of RDMAP's outcome for a ULPDU, in the order in which the host may see them."""

    PAYLOAD = 0    # `length` octets of the current packet to `address`
    DISCARD = 1    # throw the (rest of the) current packet away
    CQE = 2        # `data` is abi.CqeBody, for `cq`
    EVENT = 3      # `data` is abi.EventBody
    TOKEN = 4


class PlaceCommand(data.StructLayout):
    """RDMAP to queues.

    Members
    -------
    kind : ``PlaceKind``
    token : ``Token``
    qp : ``unsigned(qp_bits)``
        For attribution.
    address : ``unsigned(64)``
        Physical. (PAYLOAD)
    length : ``unsigned(13)``
        Octets, at least 1. (PAYLOAD)
    skip : ``unsigned(6)``
        Octets of the packet to leave out before. (PAYLOAD)
    final : ``unsigned(1)``
        What is left of the packet after this is thrown away: the packet is done. (PAYLOAD)
    cq : ``unsigned(cq_bits)``
    data : ``unsigned(448)``
    """

    def __init__(self, config):
        super().__init__({"kind": PlaceKind, "token": Token(config), "qp": config.qp_bits, "address": 64, "length": 13,
                          "skip": 6, "final": 1, "cq": config.cq_bits, "data": 448})


class WriteKind(enum.Enum, shape=2):
    """What the write engine does."""

    PAYLOAD = 0    # octets of the current packet
    DISCARD = 1    # throw the (rest of the) current packet away
    INLINE = 2     # `length` octets of `data`
    TOKEN = 3      # comes out of dma's `token` once all writes before it have left the guard


class WriteCommand(data.StructLayout):
    """Queues to dma; fields as in PlaceCommand. INLINE: 1..64 octets of ``data`` (512 bits, first
    octet lowest) to ``address``, which is a multiple of 4. ``msix``: an interrupt message, INLINE of 4 octets; the
    guard lets nothing else into the interrupt window, and lets it nowhere else."""

    def __init__(self, config):
        super().__init__({"kind": WriteKind, "token": Token(config), "address": 64, "length": 13, "skip": 6,
                          "final": 1, "msix": 1, "data": 512})


class TlpWord(PacketWord):
    """A word of TLPs on their way to the guard: a PacketWord, and ``msix``: the TLP is an interrupt message."""

    def __init__(self, nbytes):
        super().__init__(nbytes)
        data.StructLayout.__init__(self, {"data": 8 * nbytes, "empty": range(nbytes), "last": 1, "err": 1, "msix": 1})


#: ``length`` octets of a packet of its own to ``address``, but for the ``skip`` octets that it begins with.
PlainWrite = data.StructLayout({"address": 64, "length": 13, "skip": 3})


class ReadRequest(data.StructLayout):
    """A read of host memory.

    Members
    -------
    client : ``unsigned(3)``
        ReadClient: comes back with the data.
    address : ``unsigned(64)``
    length : ``unsigned(10)``
        Octets, 1..read_bytes, not across 4 KiB.
    ordered : ``unsigned(1)``
        Leaves only after every write accepted before it.
    """

    def __init__(self, config):
        super().__init__({"client": 3, "address": 64, "length": 10, "ordered": 1})


class ReadWord(data.StructLayout):
    """Data of reads, in the order of the requests, as packets: first octet read in the lowest lane.

    ``err`` (with ``last``): the read failed (UR, CA, poison, time-out); the bytes mean nothing, and
    there may be fewer of them.
    """

    def __init__(self):
        super().__init__({"data": 64, "empty": 3, "last": 1, "err": 1, "client": 3})


class MmioWrite(data.StructLayout):
    """A host write to BAR0, one 8-byte-aligned beat: ``address`` in units of 8 bytes, ``mask`` a bit a byte."""

    def __init__(self, config):
        super().__init__({"address": (config.bar_bytes // 8 - 1).bit_length(), "data": 64, "mask": 8})


class MmioRead(data.StructLayout):
    """A host read of BAR0 within 8 aligned bytes; answered by one 64-bit word, in order."""

    def __init__(self, config):
        super().__init__({"address": (config.bar_bytes // 8 - 1).bit_length()})


#: A forbidden physical range of the guard: [first, end) in pages of 4 KiB.
GuardRange = data.StructLayout({"first": 52, "end": 52})
