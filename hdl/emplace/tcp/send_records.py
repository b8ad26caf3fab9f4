"""What TCP's transmit side keeps of each connection, and what its units tell each other."""

from amaranth.lib import data, enum

__all__ = ["SendState", "SendSetup", "AckNews", "Mail", "CongestionEvent", "NO_LIMIT"]

#: ssthresh before the first loss.
NO_LIMIT = 0x3FFF_FFFF


class SendState(data.StructLayout):
    """One connection's transmit state (names of RFC 9293, RFC 5681, RFC 6582, RFC 6298).

    Members
    -------
    alive : ``unsigned(1)``
    una, nxt, max, wnd : ``unsigned(32)``
        SND.UNA, SND.NXT (below ``max`` while octets are sent again), the highest SND.NXT, SND.WND.
    cwnd, ssthresh : ``unsigned(30)``
    recover : ``unsigned(32)``
        SND.MAX at the last loss.
    recovering : ``unsigned(1)``
        Fast recovery.
    guarded : ``unsigned(1)``
        There was a loss: no fast retransmit before an ACK is beyond ``recover`` (RFC 6582 3.2 step 1).
    repeat : ``unsigned(1)``
        The segment at ``una`` is to be sent again, out of turn.
    dups : ``unsigned(2)``
        Duplicate ACKs in a row, up to 3.
    seen : ``unsigned(8)``
        Mail's count of duplicate ACKs as of the last visit.
    armed, deadline : 1, 32 bits
        Retransmission (or persist) timer, in ticks.
    persist : ``unsigned(1)``
        It is the persist timer: nothing is in flight, and the window is closed.
    srtt, rttvar : ``unsigned(16)``
        Ticks * 8, ticks * 4.
    measured : ``unsigned(1)``
        There has been a sample.
    timing, timed, since : 1, 32, 32 bits
        Without timestamps: octet ``timed`` was sent for the first time at tick ``since``.
    backoff : ``unsigned(4)``
        Expiries in a row.
    """

    def __init__(self):
        super().__init__({
            "alive": 1, "una": 32, "nxt": 32, "max": 32, "wnd": 32, "cwnd": 30, "ssthresh": 30, "recover": 32,
            "recovering": 1, "guarded": 1, "repeat": 1, "dups": 2, "seen": 8, "armed": 1, "deadline": 32, "persist": 1,
            "srtt": 16, "rttvar": 16, "measured": 1, "timing": 1, "timed": 32, "since": 32, "backoff": 4,
        })


class SendSetup(data.StructLayout):
    """What doesn't change. ``segment``: octets of payload of a full segment, a multiple of 4."""

    def __init__(self):
        super().__init__({"segment": 12, "timestamps": 1, "vlan": 1, "ts_offset": 32})


class AckNews(data.StructLayout):
    """Receive to transmit: an acceptable segment of ``qp`` acknowledged ``ack`` and offered ``wnd`` octets.

    ``empty``: it had no payload. ``stamped``: it had timestamps, ``tsecr``.
    """

    def __init__(self, config):
        super().__init__({"qp": config.qp_bits, "ack": 32, "wnd": 32, "empty": 1, "stamped": 1, "tsecr": 32})


class Mail(data.StructLayout):
    """The newest of it, and a running count of duplicate ACKs (RFC 5681 2, where data is in flight)."""

    def __init__(self):
        super().__init__({"ack": 32, "wnd": 32, "dups": 8, "stamped": 1, "tsecr": 32})


class CongestionEvent(enum.Enum, shape=3):
    """What a congestion control is told."""

    ACK = 0          # `octets` newly acknowledged
    DUP_3 = 1        # third duplicate ACK: fast retransmit begins
    DUP_MORE = 2     # another one, in recovery
    PARTIAL = 3      # in recovery, `octets` newly acknowledged, not all of it
    RECOVERED = 4    # all of it
    TIMEOUT = 5      # retransmission timer, for the first time
    IDLE = 6         # nothing was sent for an RTO
