"""A peer's transmit side on bytes: frames that carry a stream of FPDUs.

Nothing here retransmits or listens: tests and benchmarks decide what goes out, in which cut. One that does: ``peer``.
"""

from dataclasses import dataclass, field

from .ddp import read_request, read_response, send, terminate, write
from .segment import Ends, Tcp, build, timestamp_option

__all__ = ["Flow", "read_request", "read_response", "send", "terminate", "write"]


@dataclass
class Flow:
    """One direction of a TCP connection: the peer's, towards the card.

    ``frame`` is stateless; ``push`` sends the next bytes of the stream.
    """

    src_ip: int = 0x0A000002
    dst_ip: int = 0x0A000001
    src_port: int = 20000
    dst_port: int = 30000
    src_mac: int = 0x525400000002
    dst_mac: int = 0x525400000001
    seq: int = 1000                      # of the next new byte
    ack: int = 5000
    window: int = 0x400
    timestamps: bool = True
    tsval: int = 100
    tsecr: int = 0
    vlan: int | None = None              # TCI
    mss: int = 1448
    sent: bytearray = field(default_factory=bytearray)

    def frame(self, payload=b"", *, seq=None, ack=None, flags=0x10, tsval=None, options=None, window=None):
        """A frame without FCS and padding."""
        if options is None:
            options = timestamp_option(self.tsval if tsval is None else tsval, self.tsecr) if self.timestamps else b""
        return build(self.ends, Tcp(self.seq if seq is None else seq, self.ack if ack is None else ack, flags,
                                    self.window if window is None else window, options, payload))

    @property
    def ends(self):
        return Ends(self.src_mac, self.dst_mac, self.src_ip, self.dst_ip, self.src_port, self.dst_port, self.vlan)

    def push(self, payload, **changes):
        """The frame with the next ``payload`` of the stream."""
        made = self.frame(payload, **changes)
        self.seq = (self.seq + len(payload)) & 0xFFFFFFFF
        self.sent += payload
        return made

    def cut(self, stream, mss=None):
        """Frames that carry ``stream`` in segments of ``mss`` bytes, the last one with PSH, as stacks send it."""
        mss = mss or self.mss
        return [self.push(stream[at:at + mss], flags=0x10 if at + mss < len(stream) else 0x18)
                for at in range(0, len(stream), mss)]
