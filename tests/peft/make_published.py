"""Trains adapters in forms that are published and that no method of espalier trains, by the real PEFT: `make_published.py FIXTURES OUT`.

FIXTURES is tests/fixtures, whose small bases are used. Writes for each case a folder with `adapter.zip` (as save_pretrained leaves it)
and `expected.json`: the base, what the import infers (`task`), options of the request, and either the logits of a classifier on INPUTS,
the logits of a language model behind the token ids of PROMPTS, or the embeddings of INPUTS.
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from common import INPUTS, TEXTS, encode, load_tokenizer, zip_folder
from make_methods import tidy
from peft import LoraConfig, get_peft_model
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSequenceClassification

LENGTH = 64
PROMPTS = [[60, 61, 62, 5, 9, 300], [7, 7, 7], [100]]
LORA = {"r": 4, "lora_alpha": 8}
LLAMA = {**LORA, "target_modules": ["q_proj", "v_proj"]}
BERT = {**LORA, "target_modules": ["query", "value"]}
# Name: base, class, configuration, expected task, options of the request.
CASES = {
    "llama-embeddings-and-head": (
        "decoders/llama",
        "causal",
        {**LLAMA, "task_type": "CAUSAL_LM", "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "qwen2-embeddings": (
        "decoders/qwen2",
        "causal",
        {**LLAMA, "task_type": "CAUSAL_LM", "modules_to_save": ["embed_tokens"]},
    ),
    "qwen2-head": ("decoders/qwen2", "causal", {**LLAMA, "task_type": "CAUSAL_LM", "modules_to_save": ["lm_head"]}),
    "llama-lora-of-embeddings-and-head": (
        "decoders/llama",
        "causal",
        {
            **LORA,
            "task_type": "CAUSAL_LM",
            "target_modules": ["embed_tokens", "lm_head", "q_proj"],
            "rank_pattern": {"lm_head": 2},
            "alpha_pattern": {"embed_tokens": 3},
            "use_rslora": True,
        },
    ),
    "gpt2-lora-of-head": (
        "decoders/gpt2",
        "causal",
        {**LORA, "task_type": "CAUSAL_LM", "target_modules": ["c_attn", "lm_head"], "fan_in_fan_out": True},
    ),
    "llama-trainable-tokens": (
        "decoders/llama",
        "causal",
        {**LLAMA, "task_type": "CAUSAL_LM", "trainable_token_indices": [5, 60, 300]},
    ),
    "qwen2-trainable-tokens": (
        "decoders/qwen2",
        "causal",
        {**LLAMA, "task_type": "CAUSAL_LM", "trainable_token_indices": {"embed_tokens": [5, 60, 300]}},
    ),
    "llama-layers": (
        "decoders/llama",
        "causal",
        {**LORA, "target_modules": ["q_proj", "up_proj", "o_proj"], "layers_to_transform": [1], "exclude_modules": ["up_proj"]},
    ),
    "bert-lora-of-embeddings": (
        "tiny-bert",
        "classifier",
        {**LORA, "task_type": "SEQ_CLS", "target_modules": ["word_embeddings", "query"]},
    ),
    "bert-embeddings": (
        "tiny-bert",
        "classifier",
        {**BERT, "task_type": "SEQ_CLS", "modules_to_save": ["classifier", "word_embeddings"]},
    ),
    "bert-classifier-without-task": ("tiny-bert", "classifier", {**BERT, "modules_to_save": ["classifier"]}),
    "bert-regression": ("tiny-bert", "regression", {**BERT, "task_type": "SEQ_CLS"}),
    "bert-sentence-encoder": ("tiny-bert", "encoder", {**BERT, "task_type": "FEATURE_EXTRACTION"}),
    "bert-sentence-encoder-without-task": ("tiny-bert", "encoder", BERT),
    "bert-masked-without-task": ("language/bert", "masked", {**BERT, "bias": "lora_only", "use_dora": True}),
    "llama-score-without-task": ("architectures/llama", "classifier", {**LLAMA, "modules_to_save": ["score"]}),
}
CLASSES = {
    "causal": (AutoModelForCausalLM, "causal_language_model", {}),
    "classifier": (AutoModelForSequenceClassification, "sequence_classification", {"num_labels": 3}),
    "regression": (AutoModelForSequenceClassification, "regression", {"num_labels": 1}),
    "encoder": (AutoModel, "embedding", {}),
    "masked": (AutoModelForMaskedLM, "masked_language_model", {}),
}


def loss_of(kind, model, tokenizer):
    if kind == "causal":
        losses = [model(torch.tensor([ids]), labels=torch.tensor([ids])).loss for ids in PROMPTS if len(ids) > 1]
        return torch.stack(losses).sum()
    batch = encode(tokenizer, [(text, None) for text, _ in TEXTS], LENGTH)
    if kind in ("classifier", "regression"):
        labels = torch.tensor([float(label) if kind == "regression" else label for _, label in TEXTS])
        return model(**batch, labels=labels).loss
    if kind == "masked":
        return model(**batch, labels=batch["input_ids"]).loss
    return model(**batch).last_hidden_state[:, 0].square().mean()


@torch.no_grad()
def outputs(kind, model, tokenizer):
    if kind == "causal":
        return {"prompts": PROMPTS, "logits": [model(torch.tensor([ids])).logits[0, -1].tolist() for ids in PROMPTS]}
    # Embeddings and masked language models read one text, not a pair.
    reads_pairs = kind in ("classifier", "regression")
    inputs = [(text, pair) for text, pair in INPUTS if text and (reads_pairs or pair is None)]
    batch = encode(tokenizer, inputs, LENGTH)
    if kind == "encoder":
        mask = batch["attention_mask"].unsqueeze(-1)
        rows = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        return {"inputs": inputs, "logits": torch.nn.functional.normalize(rows).tolist()}
    if kind == "masked":
        # The probe's rows: the mean of the last layer.
        hidden = model(**batch, output_hidden_states=True).hidden_states[-1]
        mask = batch["attention_mask"].unsqueeze(-1)
        rows = (hidden * mask).sum(1) / mask.sum(1)
        return {"inputs": inputs, "logits": torch.nn.functional.normalize(rows).tolist()}
    return {"inputs": inputs, "logits": model(**batch).logits.tolist()}


def make(name, fixtures: Path, out: Path) -> None:
    torch.manual_seed(7)
    folder, kind, fields = CASES[name]
    model_class, task, options = CLASSES[kind]
    base_folder = fixtures / folder
    tokenizer = None if kind == "causal" else load_tokenizer(base_folder)
    model = get_peft_model(model_class.from_pretrained(base_folder, **options), LoraConfig(**fields))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(10):
        loss = loss_of(kind, model, tokenizer)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"{name}: loss {loss.item():.4f}")
    base_name = "example/" + folder.replace("/", "-")
    model.peft_config["default"].base_model_name_or_path = base_name
    adapter = out / name / "adapter"
    shutil.rmtree(adapter, ignore_errors=True)
    model.save_pretrained(adapter)
    (adapter / "README.md").unlink()
    tidy(adapter / "adapter_config.json")
    zip_folder(adapter, out / name / "adapter.zip")
    shutil.rmtree(adapter)
    expected = {"model": folder, "base": base_name, "task": task, "max_length": LENGTH, **outputs(kind, model.eval(), tokenizer)}
    (out / name / "expected.json").write_text(json.dumps(expected) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fixtures", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    for name in CASES:
        make(name, options.fixtures, options.out)


if __name__ == "__main__":
    main()
