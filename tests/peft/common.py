"""What the scripts of this folder share: logits in evaluation mode, and a zip of a folder."""

import json
import zipfile
from pathlib import Path

import torch

Pair = tuple[str, str | None]


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
