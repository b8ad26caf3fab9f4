"""The card's counters under the names that operating systems have for them.

``Ip...``, ``IpExt...``, ``Tcp...``, ``TcpExt...``: as nstat prints them (IP-MIB RFC 4293, TCP-MIB RFC 4022, and Linux's
own behind ``Ext``). ``eth-mac ...`` and ``rmon ...``: ``ethtool -S eth0 --groups eth-mac rmon`` (IEEE 802.3 clause 30,
RFC 2819). ``iw ...``: ``rdma statistic`` of irdma. A counter that has no such name keeps its own.
"""

__all__ = ["OS_NAMES", "os_name"]

OS_NAMES = {
    "rx_frames": "eth-mac FramesReceivedOK",
    "rx_fcs_errors": "eth-mac FrameCheckSequenceErrors",
    "rx_undersize": "rmon etherStatsUndersizePkts",
    "rx_fragments": "rmon etherStatsFragments",
    "rx_jabbers": "rmon etherStatsJabbers",
    "rx_broadcast": "eth-mac BroadcastFramesReceivedOK",
    "rx_multicast": "eth-mac MulticastFramesReceivedOK",
    "tx_broadcast": "eth-mac BroadcastFramesXmittedOK",
    "tx_multicast": "eth-mac MulticastFramesXmittedOK",
    "rx_pause": "eth-ctrl MACControlFramesReceived",
    "tx_pause": "eth-ctrl MACControlFramesTransmitted",
    "rx_oversize": "rmon etherStatsOversizePkts",
    "rx_overflow": "eth-mac FramesLostDueToIntMACRcvError",
    "tx_frames": "eth-mac FramesTransmittedOK",
    "rx_ip_header": "IpInHdrErrors",
    "rx_ip_checksum": "IpExtInCsumErrors",
    "rx_ip_fragment": "IpReasmReqds",
    "rx_tcp_header": "TcpInErrs",
    "rx_tcp_checksum": "TcpInCsumErrors",
    "rx_segments": "TcpInSegs",
    "rx_fast_path": "TcpExtTCPHPHits",
    "rx_pure_acks": "TcpExtTCPPureAcks",
    "rx_held": "TcpExtTCPOFOQueue",
    "rx_held_dropped": "TcpExtTCPOFODrop",
    "rx_refused": "TcpExtTCPBacklogDrop",
    "rx_dead": "TcpExtTCPAbortOnClose",
    "tx_acks": "TcpOutSegs",
    "rx_writes": "iw iwInRdmaWrites",
    "rx_sends": "iw iwInRdmaSends",
    "rx_read_requests": "iw iwInRdmaReads",
}


def os_name(counter):
    """The OS's name for a counter's, or an empty string."""
    return OS_NAMES.get(counter, "")
