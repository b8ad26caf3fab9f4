"""How a connection came about, as frames: for taps that begin at the hand-over, so that Wireshark knows what follows.

Its MPA dissector recognizes FPDUs in a connection whose MPA request and reply it has seen.
"""

from .mpa import MpaFrame
from .segment import ACK, PSH, SYN, Ends, Tcp, build, timestamp_option

__all__ = ["prelude"]


def prelude(ends: Ends, *, initiator, seq, ack, crc=True, timestamps=True, mss=1460, wscales=(7, 7), window=0x400,
            tsvals=(0, 0)):
    """[(whether the side that ``ends`` looks from sent it, frame)] of TCP's handshake and MPA's.

    ``seq``, ``ack``: where the two streams stand behind it; ``initiator``: whether that side began; ``wscales``, ``tsvals``:
    its own first.
    """
    sides = [ends, ends.turned]
    frames = [MpaFrame(n == initiator, crc=crc, ird=1, ord=1).build() for n in (0, 1)]
    starts = [(value - len(frames[n]) - 1) % 2**32 for n, value in enumerate((seq, ack))]
    at, made = [0, 0], []

    def put(n, flags, options=b"", payload=b""):
        if timestamps:
            options += timestamp_option(tsvals[n], tsvals[1 - n])
        made.append((n == 0, build(sides[n], Tcp(starts[n] + at[n], starts[1 - n] + at[1 - n] if flags & ACK else 0, flags,
                                                 window, options, payload))))
        at[n] += len(payload) + bool(flags & SYN)
    first = 0 if initiator else 1
    for n, flags in ((first, SYN), (1 - first, SYN | ACK)):
        put(n, flags, b"\x02\x04" + mss.to_bytes(2, "big") + b"\x01\x03\x03" + bytes([wscales[n]]))
    put(first, ACK)
    put(first, ACK | PSH, payload=frames[first])
    put(1 - first, ACK | PSH, payload=frames[1 - first])
    put(first, ACK)
    assert [(start + n) % 2**32 for start, n in zip(starts, at)] == [seq % 2**32, ack % 2**32]
    return made
