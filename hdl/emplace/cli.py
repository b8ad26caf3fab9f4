"""The command line. What a command needs of the simulation side is imported when it runs."""

import argparse
import sys

from .config import PROFILES

__all__ = ["main"]


def _probability(text):
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a probability in [0, 1)")
    return value


def _profile(parser):
    parser.add_argument("--profile", choices=sorted(PROFILES), default="default", help="sizes of the card (%(default)s)")


def _verilog(arguments):
    from .nic import Nic
    from .verilog import to_verilog
    text = to_verilog(Nic(PROFILES[arguments.profile]), "emplace_nic")
    if arguments.output == "-":
        sys.stdout.write(text)
    else:
        with open(arguments.output, "w") as file:
            file.write(text)
    return 0


def _replay(arguments):
    from emplace_sim.replay_cli import main as replay
    return replay(arguments)


def _demo(arguments):
    from emplace_sim.demo import demo
    return demo(arguments.profile)


def _replay_all(arguments):
    from emplace_sim.demo import replay_all
    return replay_all(arguments.profile, recuts=arguments.recuts)


def _bench(arguments):
    from emplace_sim.bench import run
    run(with_area=not arguments.no_area)
    return 0


def _timing(arguments):
    from emplace_sim.bench import run_timing
    run_timing(arguments.profile, arguments.layer)
    return 0


def _stats(arguments):
    from emplace_sim.stats import main as stats
    return stats(arguments)


def _prove(arguments):
    from emplace_sim.prove import run_all
    return 0 if run_all() else 1


def _parser():
    parser = argparse.ArgumentParser(prog="emplace", description="An iWARP RDMA network card in Amaranth.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    verilog = commands.add_parser("verilog", help="write the card as Verilog")
    _profile(verilog)
    verilog.add_argument("-o", "--output", default="emplace_nic.v", help="file, or - (%(default)s)")
    verilog.set_defaults(run=_verilog)

    replay = commands.add_parser("replay", help="replay a capture of iWARP connections through the simulated card",
                                 description="The card plays one side of every iWARP connection in FILE. Exit code 0: all "
                                 "that the peer sent was placed and nothing else; 1: not so; 2: nothing to replay.")
    replay.add_argument("file", metavar="FILE", help="pcap or pcapng with whole Ethernet frames")
    replay.add_argument("--as", dest="role", choices=("client", "server"), default="server",
                        help="the side that the card plays; client is who sent the MPA request (%(default)s)")
    replay.add_argument("--stall", type=_probability, default=0.0, metavar="P",
                        help="probability that the bus refuses a word, or pauses, in a cycle (%(default)s)")
    replay.add_argument("--recut", type=int, metavar="SEED",
                        help="cut the peer's stream anew at random places, with duplicates, overlaps and reordering")
    replay.add_argument("--seed", type=int, default=0, help="of addresses, buffers and delays (%(default)s)")
    replay.add_argument("--out", default="build/replay", metavar="DIR", help="where the taps go (%(default)s)")
    replay.add_argument("--json", action="store_true", help="print the results as JSON")
    _profile(replay)
    replay.set_defaults(run=_replay)

    demo = commands.add_parser("demo", help="replay shipped captures of a Linux kernel and show what landed")
    _profile(demo)
    demo.set_defaults(run=_demo)

    everything = commands.add_parser("replay-all", help="every shipped capture, both roles, stalls, re-cuts")
    everything.add_argument("--recuts", type=int, default=10, metavar="N", help="re-cuts of each (%(default)s)")
    _profile(everything)
    everything.set_defaults(run=_replay_all)

    stats = commands.add_parser("stats", help="counters, bus ledger, histories and samples of a run",
                                description="RUN: what `emplace replay --json` printed, a run's folder or its "
                                "results.json; or a capture, which is replayed first. Exit code 2: nothing to show.")
    stats.add_argument("run_file", metavar="RUN", help="JSON, folder, or capture")
    stats.add_argument("--as", dest="role", choices=("client", "server"), default="server",
                       help="of a capture, the card's side (%(default)s)")
    stats.add_argument("--all", action="store_true", help="counters that are 0, too")
    _profile(stats)
    stats.set_defaults(run=_stats)

    bench = commands.add_parser("bench", help="measure cycles, goodput and area; table and build/bench.json")
    bench.add_argument("--no-area", action="store_true", help="leave the synthesis out")
    bench.set_defaults(run=_bench)

    timing = commands.add_parser("timing", help="place and route for the board that `tiny` is sized for")
    timing.add_argument("--profile", choices=sorted(PROFILES), default="tiny", help="sizes of the card (%(default)s)")
    timing.add_argument("--layer", help="one folder of the gateware alone, which takes minutes instead of an hour")
    timing.set_defaults(run=_timing)

    prove = commands.add_parser("prove", help="run the proofs and their mutants")
    prove.set_defaults(run=_prove)
    return parser


def main(argv=None):
    """Run a command; its exit code."""
    arguments = _parser().parse_args(argv)
    return arguments.run(arguments)


if __name__ == "__main__":
    sys.exit(main())
