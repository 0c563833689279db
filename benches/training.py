"""LoRA training: espalier against PyTorch + PEFT on the same machine, in alternating runs. Prints a table of medians.

    scripts/python-env.sh && .venv/bin/python benches/training.py [--rounds 5] [--steps 40] [--csv FILE] [--only NAME]

Both sides: all-MiniLM-L6-v2, rank 8 on query and value, batches of 32, two threads.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CASES = {
    # name: pooling, max_length, the peer's loop
    "a: as HF Trainer, mean": ("mean", 128, "hf"),
    "b: tuned PyTorch, mean": ("mean", 128, "tuned"),
    "b: tuned PyTorch, cls": ("cls", 128, "tuned"),
    "c: 128 tokens each, mean": ("mean", -128, "tuned"),
}


def run(command):
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if out.returncode != 0:
        sys.exit(f"{command} failed:\n{out.stderr[-2000:]}")
    return json.loads(out.stdout.strip().splitlines()[-1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--csv", default="examples/banking77-sample.csv")
    parser.add_argument("--binary", help="the built benchmark; else it is built")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    binary = options.binary
    if not binary:
        built = ["cargo", "bench", "--locked", "--bench", "training", "--no-run", "--message-format=json"]
        messages = subprocess.run(built, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
        named = [json.loads(line) for line in messages]
        binary = [one["executable"] for one in named if one.get("target", {}).get("name") == "training" and one.get("executable")][-1]
    print(f"| case | espalier, examples/s | peer, examples/s | ratio | rounds |\n|---|---|---|---|---|")
    for name, (pooling, length, how) in CASES.items():
        if options.only not in name:
            continue
        common = ["models/all-MiniLM-L6-v2", options.csv, pooling, str(options.steps), str(options.threads), str(length)]
        ours, theirs = [], []
        for _ in range(options.rounds):
            ours.append(run([binary, *common])["examples_per_second"])
            theirs.append(run([sys.executable, "benches/peer.py", *common, how])["examples_per_second"])
        ratios = statistics.median(one / other for one, other in zip(ours, theirs))
        low, high = (choose(one / other for one, other in zip(ours, theirs)) for choose in (min, max))
        print(f"| {name} | {statistics.median(ours):.1f} | {statistics.median(theirs):.1f} | {ratios:.2f} ({low:.2f} to {high:.2f}) | {options.rounds} |", flush=True)


main()
