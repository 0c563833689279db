"""PyTorch + PEFT's side of quality.py: LoRA and a head on mean-pooled rows (of a decoder, on the last token), trained on a JSON lines file. Prints the predictions for another.

    quality_peer.py MODEL TRAIN TEST label|labels|value [EPOCHS]

The tuned loop of peer.py: batches of 32 texts of like length, AdamW, a learning rate of 1e-3 with warm-up and linear decay. By default as many
epochs as give 300 steps, at least 3 and at most 30.
"""

import json
import sys
from pathlib import Path

import torch
from peer import BATCH, RATE, Clock, build, scheduled, train
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

MIN_STEPS, MAX_LENGTH = 300, 256
RATE_OF_DECODERS = 5e-4


def build_decoder(folder, outputs, tokenizer):
    """LoRA and a head on the last token."""
    tokenizer.pad_token = tokenizer.eos_token
    options = {"num_labels": outputs, "pad_token_id": tokenizer.pad_token_id, "dtype": torch.float32}
    model = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], modules_to_save=["score"]))


def outputs_of(model, batch):
    outputs = model(**batch)
    return outputs if torch.is_tensor(outputs) else outputs.logits


def rows(file):
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def targets_of(read, kind):
    """Targets as a tensor, and how a row of outputs becomes a prediction."""
    if kind == "value":
        values = torch.tensor([row["value"] for row in read])
        mean, deviation = values.mean(), values.std()
        return ((values - mean) / deviation).unsqueeze(1), lambda outputs: float(outputs[0] * deviation + mean)
    if kind == "labels":
        names = sorted({label for row in read for label in row["labels"]})
        targets = torch.tensor([[float(name in row["labels"]) for name in names] for row in read])
        return targets, lambda outputs: [name for name, output in zip(names, outputs, strict=True) if output > 0]
    names = sorted({row["label"] for row in read})
    return torch.tensor([names.index(row["label"]) for row in read]), lambda outputs: names[int(outputs.argmax())]


LOSSES = {
    "value": torch.nn.functional.mse_loss,
    "labels": torch.nn.functional.binary_cross_entropy_with_logits,
    "label": torch.nn.functional.cross_entropy,
}


def encode(tokenizer, read):
    return [tokenizer(row["text"], row.get("text_pair"), truncation=True, max_length=MAX_LENGTH) for row in read]


def main():
    folder, train_file, test_file, kind, *rest = sys.argv[1:]
    torch.manual_seed(1)
    read, tokenizer = rows(train_file), AutoTokenizer.from_pretrained(folder)
    (targets, to_prediction), tokens = targets_of(read, kind), encode(tokenizer, read)
    steps_per_epoch = -(-len(read) // BATCH)
    epochs = int(rest[0]) if rest else max(3, min(30, -(-MIN_STEPS // steps_per_epoch)))
    outputs = targets.shape[1] if targets.dim() == 2 else int(targets.max()) + 1
    is_decoder = AutoConfig.from_pretrained(folder).model_type == "llama"
    model = build_decoder(folder, outputs, tokenizer) if is_decoder else build(folder, outputs, "mean", "tuned")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE_OF_DECODERS if is_decoder else RATE, weight_decay=0.01)

    def step(indices):
        batch = tokenizer.pad([tokens[index] for index in indices], return_tensors="pt")
        loss = LOSSES[kind](outputs_of(model, batch), targets[indices])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    step = scheduled(step, optimizer, epochs * steps_per_epoch)
    for _ in train(step, [len(one["input_ids"]) for one in tokens], epochs, Clock()):
        pass
    model.eval()
    predictions = []
    with torch.inference_mode():
        test = encode(tokenizer, rows(test_file))
        for start in range(0, len(test), BATCH):
            batch = tokenizer.pad(test[start : start + BATCH], return_tensors="pt")
            predictions += [to_prediction(row) for row in outputs_of(model, batch)]
    print(json.dumps({"predictions": predictions}))


if __name__ == "__main__":
    main()
