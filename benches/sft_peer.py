"""PyTorch + PEFT's side of sft.py, the best loop that we could write, as one JSON line.

    sft_peer.py FOLDER TRAIN_JSONL HELD_OUT_JSONL THREADS SETTINGS_JSON

The rows have prompt and completion. Batches are of like length and padded behind the text: nothing looks ahead, so no mask
is needed, and scaled_dot_product_attention takes its causal path. The vocabulary is computed only where a token is learned.
AdamW is fused.
"""

import json
import random
import sys
from pathlib import Path

import torch
from peer import Clock, epoch, peak_mib, scheduled
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
UNLEARNED = -100


def read(file, tokenizer, length):
    """Of each row its tokens, and which token follows each, where it is to be learned."""
    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    return [sequence(tokenizer, row["prompt"], row["completion"], length) for row in rows]


def sequence(tokenizer, prompt, completion, length):
    """The prompt as it will be asked, the completion as it goes on in the same text, and the end."""
    asked, ids = (tokenizer(text)["input_ids"] for text in (prompt, prompt + completion))
    if ids[: len(asked)] != asked:
        ids = asked + tokenizer(completion, add_special_tokens=False)["input_ids"]
    if ids[-1] != tokenizer.eos_token_id:
        ids.append(tokenizer.eos_token_id)
    ids = ids[:length]
    return ids, [UNLEARNED] * (len(asked) - 1) + ids[len(asked) :]


def padded(sequences):
    longest = max(len(ids) for ids, _ in sequences)
    ids = [ids + [0] * (longest - len(ids)) for ids, _ in sequences]
    following = [after + [UNLEARNED] * (longest - len(after)) for _, after in sequences]
    return torch.tensor(ids), torch.tensor(following)


def loss_of(model, sequences):
    """The sum over what is learned, and how much that is."""
    ids, following = padded(sequences)
    decoder, learned = model.get_base_model(), following != UNLEARNED
    rows = decoder.model(input_ids=ids, use_cache=False).last_hidden_state[learned]
    return torch.nn.functional.cross_entropy(decoder.lm_head(rows), following[learned], reduction="sum"), len(rows)


def updating(model, optimizer, sequences, longest):
    """A step on the sequences with these indices; gradients are cut to this norm."""
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def update(indices):
        loss, count = loss_of(model, [sequences[index] for index in indices])
        (loss / count).backward()
        torch.nn.utils.clip_grad_norm_(trained, longest)
        optimizer.step()
        optimizer.zero_grad()

    return update


@torch.inference_mode()
def judge(model, sequences, size):
    model.eval()
    told = sorted(sequences, key=lambda one: len(one[0]))
    found = [loss_of(model, told[start : start + size]) for start in range(0, len(told), size)]
    return float(sum(loss for loss, _ in found)) / sum(count for _, count in found)


def main():
    folder, file, held_out, threads, settings = sys.argv[1:]
    settings = json.loads(settings)
    torch.set_num_threads(int(threads))
    torch.manual_seed(1)
    tokenizer, clock, size = AutoTokenizer.from_pretrained(folder), Clock(), settings["batch_size"]
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")
    lora = {"r": settings["rank"], "lora_alpha": settings["alpha"], "lora_dropout": 0.0, "target_modules": LINEAR}
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **lora))
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=decay, fused=True)
    with clock:
        sequences, judged = (read(one, tokenizer, settings["max_length"]) for one in (file, held_out))
    update = updating(model, optimizer, sequences, settings["max_grad_norm"])
    lengths, shuffled = [len(ids) for ids, _ in sequences], random.Random(1)
    batches = [batch for _ in range(settings["epochs"]) for batch in epoch(lengths, "tuned", shuffled, size)]
    step = scheduled(update, optimizer, len(batches))
    model.train()
    with clock:
        for indices in batches:
            step(indices)
        loss = judge(model, judged, size)
    learned = sum(token != UNLEARNED for _, after in sequences for token in after) * settings["epochs"]
    told = {"seconds": clock.seconds, "processor_seconds": clock.processor_seconds, "tokens": learned}
    told |= {"read": sum(lengths) * settings["epochs"], "loss": loss, "peak_mib": peak_mib()}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
