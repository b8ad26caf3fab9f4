"""A bad size is refused with a message that names it."""

import pytest

from emplace.config import PROFILES, NicConfig


@pytest.mark.parametrize("field, value, rule", [
    ("qps", 48, "a power of two"),
    ("phy", "rgmii", "'xgmii' or 'gmii'"),
    ("tlp_bytes", 4, "8 or 16"),
    ("fpdu_max", 4096, "a multiple of 4"),
    ("slots", 2, "in 4..64"),
    ("slot_reserve", 30, "in 1..slots - 2"),
    ("frame_words", 256, "at least 512"),
    ("read_bytes", 100, "128, 256 or 512"),
])
def test_bad_size(field, value, rule):
    with pytest.raises(ValueError, match=f"NicConfig.{field} must be {rule}.*{value}"):
        NicConfig(**{field: value})


def test_profiles_are_named_as_they_are_listed():
    assert all(name == config.name for name, config in PROFILES.items())


def test_tiny_has_more_slots_than_qps():
    """So that no QP ever waits for another's unfinished FPDU."""
    tiny = PROFILES["tiny"]
    assert tiny.slots - tiny.slot_reserve - 2 >= tiny.qps
