"""PyTorch + PEFT's side of training.py: examples per second of a LoRA step, as one JSON line.

    peer.py MODEL CSV mean|cls STEPS THREADS MAX_LENGTH hf|tuned

hf     as Hugging Face's Trainer does it: random batches padded to their longest, the model's own dropout of 0.1.
tuned  the best loop that we could write: batches of like length, no dropout, scaled_dot_product_attention, AdamW fused.
With MAX_LENGTH below 0 every sequence is exactly that long: nothing to gain from packing.
"""

import csv
import json
import random
import resource
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

WARM, BATCH = 3, 32


class MeanPooled(torch.nn.Module):
    def __init__(self, folder, labels, **options):
        super().__init__()
        self.bert = AutoModel.from_pretrained(folder, add_pooling_layer=False, **options)
        self.config = self.bert.config
        self.classifier = torch.nn.Linear(self.config.hidden_size, labels)

    def forward(self, labels, attention_mask, **inputs):
        hidden = self.bert(attention_mask=attention_mask, **inputs).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits = self.classifier((hidden * mask).sum(1) / mask.sum(1))
        return torch.nn.functional.cross_entropy(logits, labels)


def batches(lengths, how):
    """Endless batches of indices."""
    shuffled = random.Random(1)
    while True:
        order = list(range(len(lengths)))
        shuffled.shuffle(order)
        if how == "tuned":
            # Like Trainer's group_by_length: sorted within large chunks of the shuffled order.
            chunks = [order[start : start + 50 * BATCH] for start in range(0, len(order), 50 * BATCH)]
            order = [index for chunk in chunks for index in sorted(chunk, key=lambda index: lengths[index])]
        cut = [order[start : start + BATCH] for start in range(0, len(order) - BATCH + 1, BATCH)]
        shuffled.shuffle(cut)
        yield from cut


def main():
    folder, file, pooling, steps, threads, length, how = sys.argv[1:8]
    steps, length = int(steps), int(length)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    rows = list(csv.DictReader(open(file)))
    names = sorted({row["category"] for row in rows})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer([row["text"] for row in rows], truncation=True, max_length=abs(length))["input_ids"]
    if length < 0:
        tokens = [(ids * (-length // len(ids) + 1))[:-length] for ids in tokens]
    labels = [names.index(row["category"]) for row in rows]
    dropout = {} if how == "hf" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    options = {"attn_implementation": "sdpa", **dropout}
    if pooling == "cls":
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(names), **options)
    else:
        model = MeanPooled(folder, len(names), **options)
    saved = ["classifier"]
    model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["query", "value"], modules_to_save=saved))
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3, fused=how == "tuned")
    source = batches([len(ids) for ids in tokens], how)

    def step():
        indices = next(source)
        batch = tokenizer.pad({"input_ids": [tokens[index] for index in indices]}, return_tensors="pt")
        target = torch.tensor([labels[index] for index in indices])
        out = model(labels=target, **batch)
        loss = out if torch.is_tensor(out) else out.loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARM):
        step()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"examples_per_second": steps * BATCH / seconds, "peak_mib": peak}))


main()
