"""PyTorch + PEFT's side of training.py, neighbour.py and accuracy.py, as one JSON line; methods_peer.py shares its loop.

    peer.py MODEL CSV mean|cls STEPS THREADS MAX_LENGTH hf|tuned|compiled
    peer.py MODEL CSV mean|cls EPOCHS THREADS MAX_LENGTH whole TEST_CSV

hf     as Hugging Face's Trainer does it: random batches padded to their longest, the model's own dropout of 0.1.
tuned  the best loop that we could write: batches of like length, no dropout, scaled_dot_product_attention, AdamW fused.
compiled
       the tuned loop with torch.compile for any length; what it compiles is not timed.
       All three print examples per second of a LoRA step.
whole  the tuned loop over the whole file, with a learning rate of 2e-3 that rises for 6 % of the steps and falls to 0:
       seconds of each epoch, and the accuracy on the test file after it, which is not in them.

With MAX_LENGTH below 0 every sequence is exactly that long: nothing to gain from packing.
"""

import csv
import json
import math
import random
import re
import sys
import time
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

WARM, WARM_COMPILED, BATCH = 3, 15, 32
RISE, RATE, RATE_OF_WHOLE = 0.06, 1e-3, 2e-3


class MeanPooled(torch.nn.Module):
    def __init__(self, folder, labels, **options):
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
        # PEFT asks the model for both.
        self.config, self.device = self.bert.config, self.bert.device
        self.classifier = torch.nn.Linear(self.config.hidden_size, labels)

    def forward(self, attention_mask, labels=None, past_key_values=None, **inputs):
        """PEFT looks for `past_key_values` by name: prefixes come in it."""
        inputs |= {"attention_mask": attention_mask, "past_key_values": past_key_values}
        hidden = self.bert(**inputs).last_hidden_state
        # A prefix is in the mask, but not in what comes out; a soft prompt is in both, and is pooled too.
        mask = attention_mask[:, -hidden.shape[1] :].unsqueeze(-1).to(hidden.dtype)
        logits = self.classifier((hidden * mask).sum(1) / mask.sum(1))
        return logits if labels is None else torch.nn.functional.cross_entropy(logits, labels)


def base(folder, labels, pooling, how):
    dropout = {} if how == "hf" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"attn_implementation": "sdpa", **dropout}
    if pooling == "cls":
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels, **options)
    return MeanPooled(folder, labels, **options)


def build(folder, labels, pooling, how):
    model = base(folder, labels, pooling, how)
    adapted, saved = ["query", "value"], ["classifier"]
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=adapted, modules_to_save=saved))


def epoch(lengths, how, shuffled, size=BATCH):
    """The batches of one epoch, as indices; the last rows may be fewer than a batch."""
    order = list(range(len(lengths)))
    shuffled.shuffle(order)
    if how != "hf":
        # Like Trainer's group_by_length: sorted within large chunks of the shuffled order.
        chunks = [order[start : start + 50 * size] for start in range(0, len(order), 50 * size)]
        order = [index for chunk in chunks for index in sorted(chunk, key=lambda index: lengths[index])]
    cut = [order[start : start + size] for start in range(0, len(order), size)]
    shuffled.shuffle(cut)
    return cut


def full_batches(lengths, how):
    """Endless."""
    shuffled = random.Random(1)
    while True:
        yield from (batch for batch in epoch(lengths, how, shuffled) if len(batch) == BATCH)


def update(model, optimizer, trained, batch, target):
    out = model(labels=target, **batch)
    loss = out if torch.is_tensor(out) else out.loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(trained, 1.0)
    optimizer.step()
    optimizer.zero_grad()


def speed(step, source, steps, warm=WARM):
    for _ in range(warm):
        step(next(source))
    start = time.perf_counter()
    for _ in range(steps):
        step(next(source))
    return {"examples_per_second": steps * BATCH / (time.perf_counter() - start)}


def scheduled(step, optimizer, total):
    """The step with a learning rate that rises and falls over so many, as get_linear_schedule_with_warmup."""
    rise = math.ceil(RISE * total)
    share = lambda done: done / rise if done < rise else (total - done) / max(total - rise, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)

    def both(indices):
        step(indices)
        schedule.step()

    return both


class Clock:
    """Seconds, and those of the processors, of what it is wound around."""

    def __init__(self):
        self.seconds = self.processor_seconds = 0.0

    def __enter__(self):
        self.started = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.seconds += time.perf_counter() - self.started[0]
        self.processor_seconds += time.process_time() - self.started[1]


def train(step, lengths, epochs, clock):
    """The tuned loop over whole epochs; yields after each."""
    shuffled = random.Random(1)
    for _ in range(epochs):
        with clock:
            for indices in epoch(lengths, "tuned", shuffled):
                step(indices)
        yield


@torch.inference_mode()
def accuracy_of(model, tokenizer, tokens, labels):
    model.eval()
    right, order = 0, sorted(range(len(tokens)), key=lambda index: len(tokens[index]))
    for start in range(0, len(order), BATCH):
        indices = order[start : start + BATCH]
        out = model(**tokenizer.pad({"input_ids": [tokens[index] for index in indices]}, return_tensors="pt"))
        logits = out if torch.is_tensor(out) else out.logits
        right += sum(int(best) == labels[index] for best, index in zip(logits.argmax(-1), indices, strict=True))
    model.train()
    return right / len(order)


def read(file, tokenizer, length, names=None):
    """Tokens, numbers of the labels (-1 for one that has no name here), and their adapter_names."""
    with open(file, newline="") as opened:
        rows = list(csv.DictReader(opened))
    names = names or sorted({row["category"] for row in rows})
    tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=abs(length))["input_ids"]
    if length < 0:
        tokens = [(ids * (-length // len(ids) + 1))[:-length] for ids in tokens]
    numbers = {name: number for number, name in enumerate(names)}
    return tokens, [numbers.get(row["category"], -1) for row in rows], names


def stepper(model, tokenizer, tokens, labels, rate, fused):
    """A step over the examples of these indices, and its optimizer."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, fused=fused)

    def step(indices):
        batch = tokenizer.pad({"input_ids": [tokens[index] for index in indices]}, return_tensors="pt")
        update(model, optimizer, trained, batch, torch.tensor([labels[index] for index in indices]))

    return step, optimizer


def peak_mib():
    """Of this program: getrusage would tell that of whoever started it, where it is higher."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def main():
    folder, file, pooling, steps, threads, length, how, *rest = sys.argv[1:]
    steps, length = int(steps), int(length)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    tokenizer, clock = AutoTokenizer.from_pretrained(folder), Clock()
    with clock:
        tokens, labels, names = read(file, tokenizer, length)
    model = build(folder, len(names), pooling, how)
    model.train()
    rate = RATE_OF_WHOLE if how == "whole" else RATE
    if how == "compiled":
        model.compile(dynamic=True)
    step, optimizer = stepper(model, tokenizer, tokens, labels, rate, fused=how != "hf")
    lengths = [len(ids) for ids in tokens]
    if how == "whole":
        test = read(rest[0], tokenizer, length, names)[:2]
        step = scheduled(step, optimizer, steps * -(-len(tokens) // BATCH))
        told = []
        for _ in train(step, lengths, steps, clock):
            told.append({"seconds": clock.seconds, "accuracy": accuracy_of(model, tokenizer, *test)})
        told = {"epochs": told}
    else:
        told = speed(step, full_batches(lengths, how), steps, WARM_COMPILED if how == "compiled" else WARM)
    print(json.dumps({**told, "peak_mib": peak_mib()}))


if __name__ == "__main__":
    main()
