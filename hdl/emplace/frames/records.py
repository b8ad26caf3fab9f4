"""What the plain frame path is told, tells, and keeps."""

from amaranth.lib import data

__all__ = ["FrameSettings", "FrameRing", "Reached", "FrameHead", "HEADER_BUFFER"]

#: Octets of a descriptor's header buffer.
HEADER_BUFFER = 128

#: From the registers. ``rx``, ``split``, ``promiscuous``: abi.FrameControl; ``buffer_log2``: of a data buffer's bytes,
#: 8..16; ``mac``: the card's address as a number, the first octet on the wire highest.
FrameSettings = data.StructLayout({"rx": 1, "split": 1, "promiscuous": 1, "buffer_log2": 5, "mac": 48})

#: The receive ring and that of its completions: bases in units of 4 KiB, ``producer`` modulo 2**16. Not used unless
#: ``enabled``; ``restart`` strobes when descriptor and completion 0 are to be next.
FrameRing = data.StructLayout({"base": 52, "completions": 52, "log2": 4, "producer": 16, "enabled": 1, "restart": 1})

#: A mark's answer: the completion of the QP's last HELD frame is number ``index`` since the ring was started, if there is
#: one (``any``).
Reached = data.StructLayout({"any": 1, "index": 32})


class FrameHead(data.StructLayout):
    """The word in frame memory before a frame; or a mark, which is nothing but such a word.

    Members
    -------
    mark, fresh, reason, flags, qp
        As in :class:`~emplace.ip.records.Disposition`.
    length : ``unsigned(13)``
        Octets of the frame.
    header : ``unsigned(7)``
        As in Disposition.
    qpn : ``unsigned(24)``
        Mark.
    """

    def __init__(self, config):
        super().__init__({
            "mark": 1, "fresh": 1, "reason": 4, "flags": 4, "qp": config.qp_bits,
            "of": data.UnionLayout({"mark": data.StructLayout({"qpn": 24}),
                                    "frame": data.StructLayout({"length": 13, "header": 7})}),
        })
