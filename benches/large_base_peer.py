"""PyTorch + PEFT's side of large_base.py: LoRA and a head on the last token of a decoder in f32. Prints examples/s and
peak memory as JSON.

    large_base_peer.py FOLDER CSV STEPS THREADS MAX_LENGTH

Batches of 32 texts of like length, AdamW, rank 8 on the queries and values; one step before those that count.
"""

import csv
import json
import sys
import time
from pathlib import Path

import torch
from peer import BATCH, full_batches, peak_mib
from quality_peer import build_decoder
from transformers import AutoTokenizer

WARM = 1


def main():
    folder, file, steps, threads, max_length = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    with Path(file).open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    labels = sorted({row["category"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = build_decoder(folder, len(labels), tokenizer)
    tokens = [tokenizer(row["text"], truncation=True, max_length=int(max_length)) for row in rows]
    targets = torch.tensor([labels.index(row["category"]) for row in rows])
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=5e-4)
    batches = full_batches([len(one["input_ids"]) for one in tokens], "tuned")

    def step():
        indices = next(batches)
        batch = tokenizer.pad([tokens[index] for index in indices], return_tensors="pt")
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, targets[indices])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return float(loss)

    for _ in range(WARM):
        step()
    start = time.perf_counter()
    losses = [step() for _ in range(int(steps))]
    seconds = time.perf_counter() - start
    print(json.dumps({"examples_per_second": BATCH * len(losses) / seconds, "peak_mib": peak_mib(), "loss": losses[-1]}))


if __name__ == "__main__":
    main()
