"""tests.system.cocotb_frames_tx on the whole card; Wireshark opens what was on the wire."""

import shutil
import subprocess

import pytest

from emplace.config import PROFILES
from emplace.nic import Nic
from emplace_sim.build import run_cocotb

pytestmark = pytest.mark.cocotb


@pytest.mark.parametrize("profile", [pytest.param(name, marks=pytest.mark.xdist_group(f"nic-{name}"))
                                     for name in ("default", "tiny")])
def test_frames_tx(profile, tmp_path):
    run_cocotb(Nic(PROFILES[profile]), f"emplace_nic_{profile}", "tests.system.cocotb_frames_tx",
               env={"EMPLACE_PROFILE": profile, "EMPLACE_TAPS": str(tmp_path)})
    taps = sorted(tmp_path.glob("*.pcapng"))
    assert len(taps) >= 10
    if shutil.which("tshark") is None:       # Debian: apt-get install tshark
        return
    for tap in taps:
        done = subprocess.run(["tshark", "-r", str(tap), "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
                               "-T", "fields", "-e", "frame.number", "-Y",
                               "(_ws.malformed && !tcp.analysis.retransmission) || tcp.checksum.status == 0 ||"
                               " udp.checksum.status == 0"],
                              capture_output=True, text=True, check=True)
        # Of what the host sends, and of the frame that was spoiled on purpose. Reassembly calls a repeated segment malformed.
        assert len(done.stdout.split()) <= (2 if tap.stem == "echo" else 0), (tap.name, done.stdout)
