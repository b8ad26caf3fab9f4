"""Fuzzing for a chosen time: ``python tools/fuzz.py --seconds 600``. Every round prints its seed.

A round is all of ``tests/system/cocotb_hostile.py`` and ``cocotb_fuzz.py`` on one profile. The first failure ends it,
with exit code 1 and the command that repeats it.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from emplace_sim.build import build_card, run

MODULES = ("tests.system.cocotb_hostile", "tests.system.cocotb_fuzz")


def fuzz_round(profile, seed, frames, examples):
    """Number of failed tests; the simulator's output is shown only then."""
    failed = 0
    for module in MODULES:
        with tempfile.TemporaryDirectory(prefix="emplace-fuzz-") as folder:
            log = Path(folder) / "simulator.log"
            environment = {"EMPLACE_PROFILE": profile, "EMPLACE_SEED": str(seed), "EMPLACE_FRAMES": str(frames),
                           "EMPLACE_EXAMPLES": str(examples)}
            try:
                tests, bad = run(build_card(profile), module, env=environment, directory=folder, log_file=log)
            except SystemExit:           # the runner's way to say that the simulation failed
                tests, bad = 0, 1
            if bad or not tests:
                failed += 1
                sys.stderr.write(log.read_text() if log.exists() else f"{module} left no output\n")
    return failed


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="no round begins later than this (%(default)s)")
    parser.add_argument("--seed", type=int, help="one round with this seed")
    parser.add_argument("--profile", choices=("default", "tiny"), help="default: both in turn")
    parser.add_argument("--frames", type=int, default=800, help="hostile frames a test (%(default)s)")
    parser.add_argument("--examples", type=int, default=150, help="streams cut anywhere (%(default)s)")
    arguments = parser.parse_args(argv)
    end, rounds = time.monotonic() + arguments.seconds, 0
    while rounds == 0 or (arguments.seed is None and time.monotonic() < end):
        seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
        profile = arguments.profile or ("default", "tiny")[rounds % 2]
        print(f"round {rounds + 1}: seed {seed}, {profile}", flush=True)
        if fuzz_round(profile, seed, arguments.frames, arguments.examples):
            print(f"failed; again: python tools/fuzz.py --seed {seed} --profile {profile} --frames {arguments.frames} "
                  f"--examples {arguments.examples}", file=sys.stderr)
            return 1
        rounds += 1
    print(f"{rounds} rounds, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
