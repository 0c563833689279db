"""LoRA training: espalier against PyTorch + PEFT on the same machine, in alternating runs. Prints a table of medians.

    python3 benches/training.py [--rounds 5] [--steps 40] [--csv FILE] [--only NAME]

Both sides: all-MiniLM-L6-v2, rank 8 on query and value, batches of 32, two threads.
"""

import sys

import common

CASES = {
    # name: pooling, max_length, the peer's loop
    "a: as HF Trainer, mean": ("mean", 128, "hf"),
    "b: tuned PyTorch, mean": ("mean", 128, "tuned"),
    "b: tuned PyTorch, cls": ("cls", 128, "tuned"),
    "c: 128 tokens each, mean": ("mean", -128, "tuned"),
    "d: tuned PyTorch with torch.compile, mean": ("mean", 128, "compiled"),
}


def main():
    parser = common.arguments(__doc__, 5, "training")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", default=common.SAMPLE)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    options = parser.parse_args()
    program = common.bench_program(options.training, "training")
    common.header("case", "espalier, examples/s", "peer, examples/s", "ratio", "rounds")
    for name, (pooling, length, how) in CASES.items():
        if options.only not in name:
            continue
        asked = [common.MODEL, options.csv, pooling, *map(str, (options.steps, options.threads, length))]
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(common.run(program, *asked)["examples_per_second"])
            theirs.append(common.run(sys.executable, "benches/peer.py", *asked, how)["examples_per_second"])
        ratio = common.spread(one / other for one, other in zip(ours, theirs, strict=True))
        common.row(name, common.middle(ours), common.middle(theirs), ratio, options.rounds)


if __name__ == "__main__":
    main()
