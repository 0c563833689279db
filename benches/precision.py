"""LoRA training with forward passes in int8 against f32, in alternating runs. Prints a table of medians.

    python3 benches/precision.py [--rounds 3] [--steps 20] [--models PATH,…] [--csv FILE]

The bases are all-MiniLM-L6-v2, SmolLM2-135M-Instruct and a Llama of 1.17 billion random parameters (random_llama.py), or those of --models. Batches of
32 texts, rank 8 on query and value, a head on the mean of the rows. The weights are held as in the checkpoint. The loss is that of the last step.
"""

from pathlib import Path

import common  # before the others: starts again under the Python of .venv
import decoder
import random_llama

PRECISIONS = {"f32": "native", "int8": "int8"}
STEPS, STEPS_OF_LARGE_BASES = 20, 3
LARGE_BASE_BYTES = 2**30


def default_models():
    folder, _ = random_llama.write(common.ROOT / "models")
    return [common.MODEL, decoder.FILE, folder]


def is_large(model):
    files = Path(model).rglob("*") if Path(model).is_dir() else [Path(model)]
    return sum(file.stat().st_size for file in files) >= LARGE_BASE_BYTES


def main():
    parser = common.arguments(__doc__, 3, "training")
    parser.add_argument("--steps", type=int, help=f"[{STEPS}; {STEPS_OF_LARGE_BASES} where the files have a GiB or more]")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--models", help="folders and GGUF files, separated by commas")
    parser.add_argument("--max-length", type=int, default=128, help="below 0: texts are repeated until they are cut there [128]")
    parser.add_argument("--csv", default=common.SAMPLE)
    options = parser.parse_args()
    program = common.bench_program(options.training, "training")
    common.header("base", "f32, examples/s", "int8, examples/s", "ratio", "loss in f32", "in int8", "rounds")
    for model in options.models.split(",") if options.models else map(str, default_models()):
        steps = options.steps or (STEPS_OF_LARGE_BASES if is_large(model) else STEPS)
        found = {name: [] for name in PRECISIONS}
        for _ in range(options.rounds):
            for name, kernels in PRECISIONS.items():
                asked = [model, options.csv, "mean", steps, options.threads, options.max_length, kernels]
                found[name].append(common.run(program, *map(str, asked)))
        rates = {name: [one["examples_per_second"] for one in runs] for name, runs in found.items()}
        ratio = common.spread(one / other for one, other in zip(rates["int8"], rates["f32"], strict=True))
        losses = (f"{found[name][0]['loss']:.4f}" for name in PRECISIONS)
        name = model.rstrip("/").rpartition("/")[2]
        common.row(name, common.middle(rates["f32"]), common.middle(rates["int8"]), ratio, *losses, options.rounds)


if __name__ == "__main__":
    main()
