"""PyTorch + PEFT's side of quality.py for a decoder: LoRA by SFT or by DPO. Prints figures by name as one JSON line.

    quality_lm_peer.py FOLDER TRAIN_JSONL TEST_JSONL completion|preference

LoRA of rank 16 and alpha 32 on all linear maps, 3 epochs in batches of 8, AdamW with a rate that rises and falls: 2e-4 for SFT, and 5e-5 for
DPO with beta 0.1. The figure is that of the best epoch. That of the base is the same without training; of preferences it is the share of
pairs in which the chosen answer is the likelier one.
"""

import json
import math
import random
import sys
from pathlib import Path

import torch
from peer import scheduled
from peft import LoraConfig, get_peft_model
from sft_peer import LINEAR, UNLEARNED, judge, padded, read, sequence, updating
from transformers import AutoModelForCausalLM, AutoTokenizer

BATCH, EPOCHS, LENGTH, BETA = 8, 3, 512, 0.1
RATES = {"completion": 2e-4, "preference": 5e-5}


def read_pairs(file, tokenizer):
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    return [[sequence(tokenizer, row["prompt"], row[answer], LENGTH) for answer in ("chosen", "rejected")] for row in rows]


def logprobs(model, sequences):
    """The log-probability of each answer."""
    ids, following = padded(sequences)
    logits = model(input_ids=ids, use_cache=False).logits
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), following, reduction="none", ignore_index=UNLEARNED)
    return -losses.sum(1)


def rewards(model, pairs):
    """BETA times the log-ratio to the base, of chosen and rejected answers."""
    sequences = [one for pair in pairs for one in pair]
    with torch.no_grad(), model.disable_adapter():
        reference = logprobs(model, sequences)
    return (BETA * (logprobs(model, sequences) - reference)).view(-1, 2)


def preference_step(model, optimizer, pairs):
    def step(indices):
        values = rewards(model, [pairs[index] for index in indices])
        (-torch.nn.functional.logsigmoid(values[:, 0] - values[:, 1]).mean()).backward()
        torch.nn.utils.clip_grad_norm_([one for one in model.parameters() if one.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


@torch.inference_mode()
def share_chosen(score, pairs):
    values = torch.cat([score(pairs[start : start + BATCH]) for start in range(0, len(pairs), BATCH)])
    return float((values[:, 0] > values[:, 1]).float().mean())


def main():
    folder, train_file, test_file, kind = sys.argv[1:]
    torch.manual_seed(1)
    tokenizer, base = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=LINEAR))
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=RATES[kind], weight_decay=0.01)
    if kind == "completion":
        train, test = (read(file, tokenizer, LENGTH) for file in (train_file, test_file))
        step = updating(model, optimizer, train, 1.0)
        figure = base_figure = lambda: math.exp(-judge(model, test, BATCH))
    else:
        train, test = (read_pairs(file, tokenizer) for file in (train_file, test_file))
        step = preference_step(model, optimizer, train)
        base_figure = lambda: share_chosen(lambda pairs: logprobs(model, [one for pair in pairs for one in pair]).view(-1, 2), test)
        figure = lambda: share_chosen(lambda pairs: rewards(model, pairs), test)
    model.eval()
    figures, name = {"base": base_figure()}, "PEFT, LoRA"
    step, shuffled, order = scheduled(step, optimizer, EPOCHS * math.ceil(len(train) / BATCH)), random.Random(1), list(range(len(train)))
    for _ in range(EPOCHS):
        shuffled.shuffle(order)
        model.train()
        for start in range(0, len(order), BATCH):
            step(order[start : start + BATCH])
        model.eval()
        figures[name] = max(figures.get(name, 0.0), figure())
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
