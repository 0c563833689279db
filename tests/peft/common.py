"""What scripts of fixtures share: texts, a short training, logits in evaluation mode, and a zip of a folder."""

import json
import zipfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerFast

Pair = tuple[str, str | None]
TEXTS = [
    ("where is my new card?", 0),
    ("how do i change the pin of my card", 0),
    ("my card was stolen", 0),
    ("i want a refund for this order", 1),
    ("cancel the order and refund the money", 1),
    ("the payment was not for me, refund it!", 1),
    ("how do i top up my account", 2),
    ("top up with cash", 2),
]
INPUTS: list[Pair] = [
    ("Where is my card?", None),
    ("refund", None),
    ("I'd like to top up my balance by bank transfer, why does it fail?", None),
    ("a fee of 12 was charged", "it was not on the order"),
    ("", None),
    ("x" * 200, None),
]

# Short proteins and three classes of them, for bases that read amino acids.
PROTEIN_TEXTS = [
    ("MKTAYIAKQRQISFVKSHFSRQ", 0),
    ("MKVAYLAKERQ", 0),
    ("MKTLYIAKQNQISYV", 0),
    ("GAVLIGAVLLGAVI", 1),
    ("GGAVLAVLIG", 1),
    ("AVGLIVAGLIAVGLIVAG", 1),
    ("WCYHWCYFHW", 2),
    ("CWHYWCHH", 2),
]
PROTEIN_INPUTS: list[Pair] = [
    ("MKTAYIAKQR", None),
    ("W", None),
    ("MSKGEELFTGVVPILVELDGDVNGHKFSVSGEGEGDATYGKLTLKFICTTGKLPVPWPTLVTTF", None),
    ("GAVXLB", None),
    ("", None),
]


def texts_of(model):
    return PROTEIN_TEXTS if model.config.model_type == "esm" else TEXTS


def inputs_of(model):
    return PROTEIN_INPUTS if model.config.model_type == "esm" else INPUTS


def load_tokenizer(folder: Path):
    """As transformers finds it, or where the folder has a tokenizer.json alone, that."""
    if (folder / "tokenizer_config.json").exists():
        return AutoTokenizer.from_pretrained(folder)
    pad = AutoConfig.from_pretrained(folder).pad_token_id
    made = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    names = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), pad_token=made.convert_ids_to_tokens(pad), model_input_names=names
    )


def read_inputs(path: Path) -> list[Pair]:
    """A JSON list of texts or of `{"text", "text_pair"}`."""
    items = json.loads(path.read_text())
    return [(item, None) if isinstance(item, str) else (item["text"], item.get("text_pair")) for item in items]


def encode(tokenizer, inputs: list[Pair], max_length: int):
    """One input at a time would do; padded together, attention must not see the padding."""
    texts = [text if pair is None else (text, pair) for text, pair in inputs]
    encoded = [
        tokenizer(*text, truncation=True, max_length=max_length)
        if isinstance(text, tuple)
        else tokenizer(text, truncation=True, max_length=max_length)
        for text in texts
    ]
    return tokenizer.pad(encoded, return_tensors="pt")


def train(model, tokenizer, steps: int, max_length: int) -> None:
    texts = texts_of(model)
    batch = encode(tokenizer, [(text, None) for text, _ in texts], max_length)
    labels = torch.tensor([label for _, label in texts])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    model.train()
    for _ in range(steps):
        loss = model(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    print(f"loss {loss.item():.4f} after {steps} steps")


@torch.no_grad()
def classify(model, tokenizer, inputs: list[Pair], max_length: int) -> list[list[float]]:
    return model.eval()(**encode(tokenizer, inputs, max_length)).logits.tolist()


def zip_folder(folder: Path, out: Path) -> None:
    """Equal files give an equal zip."""
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.iterdir()):
            info = zipfile.ZipInfo(path.name, (1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
