"""Every size of the card, in one place."""

from dataclasses import dataclass

__all__ = ["NicConfig", "PROFILES"]


def _is_power_of_two(value):
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, kw_only=True)
class NicConfig:
    """Sizes of one build of the card. Checked when made: a bad one raises ``ValueError``.

    Members
    -------
    name : profile's name, read back in register BUILD
    phy : MAC's side of the wire, "xgmii" (64 bits a cycle) or "gmii" (a byte in each cycle with its enable)
    word_bytes : bytes a cycle in the datapath (fixed at 8)
    tlp_bytes : bytes a cycle of the TLP streams, 8 or 16
    qps : queue pairs, a power of two; the low bits of a QP number are its slot
    cqs : completion queues, a power of two
    regions : STag table entries, a power of two; the low bits of an STag's index are its slot
    pages : page list entries in card memory, shared by all regions
    slots : receive slots of ``slot_bytes`` (frame hold, unfinished FPDUs, out-of-order segments)
    slot_bytes : bytes of a slot (fixed at 2048)
    slot_reserve : slots that are never held, so that arrival always has one
    fpdu_max : longest FPDU accepted, bytes; at most ``slot_bytes``
    lookup_chain : connections that may share a bucket of the tuple hash
    rq_prefetch : receive WQEs held on the card, per QP, a power of two
    orq : outstanding reads, per QP, a power of two
    ird : inbound reads, per QP, a power of two
    guard_ranges : physical ranges that the guard can forbid
    read_tags : bus reads in flight, a power of two, 8..32: one for each client at least
    read_bytes : longest bus read, bytes
    user_contexts : doorbell pages
    vectors : MSI-X vectors, a power of two
    frame_words : words of 8 bytes that hold frames on their way to the host, a power of two; the same for those from it
    stage_words : words of 8 bytes that hold segments until they are whole and summed, a power of two
    """

    name: str = "default"
    phy: str = "xgmii"
    word_bytes: int = 8
    tlp_bytes: int = 16
    qps: int = 64
    cqs: int = 64
    regions: int = 512
    pages: int = 4096
    slots: int = 24
    slot_bytes: int = 2048
    slot_reserve: int = 2
    fpdu_max: int = 2048
    lookup_chain: int = 4
    rq_prefetch: int = 4
    orq: int = 8
    ird: int = 8
    guard_ranges: int = 8
    read_tags: int = 8
    read_bytes: int = 512
    user_contexts: int = 16
    vectors: int = 8
    frame_words: int = 1024
    stage_words: int = 512

    def __post_init__(self):
        def need(ok, field, rule):
            if not ok:
                raise ValueError(f"NicConfig.{field} must be {rule}, not {getattr(self, field)!r}")
        need(self.phy in ("xgmii", "gmii"), "phy", "'xgmii' or 'gmii'")
        need(self.word_bytes == 8, "word_bytes", "8")
        need(self.tlp_bytes in (8, 16), "tlp_bytes", "8 or 16")
        for field, most in (("qps", 1024), ("cqs", 1024), ("regions", 65536), ("pages", 65536), ("rq_prefetch", 16),
                            ("orq", 64), ("ird", 64), ("read_tags", 32), ("user_contexts", 256), ("vectors", 64),
                            ("frame_words", 8192), ("stage_words", 8192)):
            value = getattr(self, field)
            need(_is_power_of_two(value) and 2 <= value <= most, field, f"a power of two in 2..{most}")
        need(self.read_tags >= 8, "read_tags", "at least 8, so that each client of dma finds one")
        need(self.stage_words >= 512, "stage_words", "at least 512, so that a segment is built while another is sent")
        need(self.frame_words >= 512, "frame_words", "at least 512, so that two of the longest frames find room")
        need(4 <= self.slots <= 64, "slots", "in 4..64")
        need(self.slot_bytes == 2048, "slot_bytes", "2048")
        need(1 <= self.slot_reserve <= self.slots - 2, "slot_reserve", "in 1..slots - 2")
        need(128 <= self.fpdu_max <= self.slot_bytes and self.fpdu_max % 4 == 0, "fpdu_max",
             "a multiple of 4 in 128..slot_bytes")
        need(1 <= self.lookup_chain <= 8, "lookup_chain", "in 1..8")
        need(1 <= self.guard_ranges <= 16, "guard_ranges", "in 1..16")
        need(self.read_bytes in (128, 256, 512), "read_bytes", "128, 256 or 512")

    @property
    def qp_bits(self):
        return (self.qps - 1).bit_length()

    @property
    def cq_bits(self):
        return (self.cqs - 1).bit_length()

    @property
    def region_bits(self):
        return (self.regions - 1).bit_length()

    @property
    def page_bits(self):
        return (self.pages - 1).bit_length()

    @property
    def slot_bits(self):
        return (self.slots - 1).bit_length()

    @property
    def slot_words(self):
        return self.slot_bytes // self.word_bytes

    @property
    def rq_prefetch_bits(self):
        return (self.rq_prefetch - 1).bit_length()

    @property
    def bar_bytes(self):
        """Size of BAR0: 64 KiB of card pages, then one doorbell page a user context."""
        need = 0x10000 + 4096 * self.user_contexts
        return 1 << (need - 1).bit_length()


PROFILES = {
    "tiny": NicConfig(name="tiny", tlp_bytes=8, qps=16, cqs=16, regions=64, pages=1024, slots=20, orq=4, ird=4,
                      guard_ranges=4, user_contexts=4, vectors=4, frame_words=512),
    "default": NicConfig(),
    "large": NicConfig(name="large", qps=256, cqs=256, regions=4096, pages=16384, slots=64, user_contexts=64),
}
