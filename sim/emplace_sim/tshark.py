"""What tshark (Wireshark's command line) makes of a capture file: an independent reading of what went over a wire."""

import re
import shutil
import subprocess
from dataclasses import dataclass

__all__ = ["MISSING", "Reading", "read"]

#: Why tests that need it are skipped; None if it is there.
MISSING = None if shutil.which("tshark") else "tshark (Debian: apt-get install tshark) is not installed"

#: Segments may come out of order; checksums are looked at; payloads are nobody's protocol but RDMA's.
_OPTIONS = ("-o", "tcp.reassemble_out_of_order:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
            "--disable-protocol", "rpcordma")
_OPCODE = re.compile(r"\s+\.{4} [01]{4} = OpCode: .*\(0x(\w)\)$")       # not an atomic's own
_WRONG = "_ws.malformed || tcp.checksum.status == 0 || ip.checksum.status == 0 || iwarp_mpa.bad_length"


@dataclass
class Reading:
    """``fpdus``: dissected ones; ``good``, ``bad``: their CRCs, as far as they have one; ``opcodes``: RDMAP's, one an FPDU;
    ``wrong``: a line for each frame that is malformed or has a wrong checksum."""

    frames: int
    fpdus: int
    good: int
    bad: int
    opcodes: list[int]
    wrong: list[str]


def _run(path, *arguments):
    return subprocess.run(["tshark", "-r", str(path), *_OPTIONS, *arguments], text=True, capture_output=True,
                          check=True).stdout.splitlines()


def read(path) -> Reading:
    details = _run(path, "-V", "-O", "iwarp_mpa,iwarp_ddp_rdmap")
    opcodes = [int(found[1], 16) for line in details if (found := _OPCODE.match(line))]
    return Reading(frames=sum(line.startswith("Frame ") for line in details),
                   fpdus=sum("ULPDU length:" in line for line in details), good=sum("(Good CRC32)" in line for line in details),
                   bad=sum("(Bad CRC32" in line for line in details), opcodes=opcodes, wrong=_run(path, "-Y", _WRONG))
