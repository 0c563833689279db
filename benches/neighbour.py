"""A training step beside another busy process: espalier's and PyTorch's on a machine of which one core is taken.

    python3 benches/neighbour.py [--rounds 3] [--steps 40] [--threads 2] [--csv FILE]

The two programs of training.py, each alone and beside a process that keeps the first core busy at normal priority, in
alternating runs. Prints a table; the lost core by itself explains that steps take cores / (cores - 1) times as long.
"""

import os
import subprocess
import sys

import common

SPIN = "import os, sys\nos.sched_setaffinity(0, {int(sys.argv[1])})\nwhile True: pass"


class Neighbour:
    """Keeps a core busy while `with` lasts."""

    def __init__(self, core):
        self.core = core

    def __enter__(self):
        self.process = subprocess.Popen([sys.executable, "-c", SPIN, str(self.core)])

    def __exit__(self, *_):
        common.stop(self.process)


def main():
    parser = common.arguments(__doc__, 3, "training")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", default=common.SAMPLE)
    options = parser.parse_args()
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("error: this system cannot pin a process to a core: run it on Linux")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("error: there is one core only, so none would be left beside the neighbour")
    program = common.bench_program(options.training, "training")
    shared = [common.MODEL, options.csv, "mean", str(options.steps), str(options.threads), "128"]
    sides = {
        "espalier": [program, *shared],
        "PyTorch + PEFT": [sys.executable, "benches/peer.py", *shared, "tuned"],
    }
    speeds = {side: {"alone": [], "beside": []} for side in sides}
    for number in range(options.rounds):
        for side, command in sides.items():
            alone = common.run(*command)["examples_per_second"]
            with Neighbour(cores[0]):
                beside = common.run(*command)["examples_per_second"]
            speeds[side]["alone"].append(alone)
            speeds[side]["beside"].append(beside)
            common.note(f"round {number + 1}: {side}: {alone:.1f} examples/s alone, {beside:.1f} beside the neighbour")
    lost = len(cores) / (len(cores) - 1)
    speed = ("alone, examples/s", "beside, examples/s")
    common.header("side", *speed, "a step takes, times as long", "a core lost explains", "rounds")
    for side, found in speeds.items():
        longer = common.spread(one / other for one, other in zip(found["alone"], found["beside"], strict=True))
        alone, beside = common.middle(found["alone"]), common.middle(found["beside"])
        common.row(side, alone, beside, longer, f"{lost:.2f}", options.rounds)


if __name__ == "__main__":
    main()
