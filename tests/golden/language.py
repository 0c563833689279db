"""Golden numbers for crates/core/tests/engine/language.rs: a masked language model's logits, by transformers.

    language.py OUT_FOLDER [MODEL_TYPE …]

Writes OUT_FOLDER/MODEL_TYPE/{config.json,model.safetensors,tokenizer.json}, small random models with their heads, and
expected.safetensors, which holds the ids of each text as `ids.N` and the logits of all its tokens as `logits.N`. The words'
rows are those of the embeddings, but for DistilBERT, whose are its own here.
"""

import sys
from pathlib import Path

import torch
import transformers
from architectures import LATIN, MODELS, SIZES, draw, word_pieces
from safetensors.torch import save_file

TEXTS = ["Where is my {mask}?", "{mask} {mask}", "i lost my card and my {mask} at home"]


def bert(size):
    return transformers.BertConfig(vocab_size=size, pad_token_id=1, **SIZES)


def make(model_type, out):
    config, tokenizer, texts = (MODELS | {"bert": (bert, lambda: word_pieces(*LATIN), None)})[model_type]
    torch.manual_seed(21)
    tokens = tokenizer()
    mask = "[MASK]" if tokens.token_to_id("[MASK]") is not None else "<mask>"
    config = config(tokens.get_vocab_size())
    config.tie_word_embeddings = model_type != "distilbert"
    made = transformers.AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    draw(made)
    made.save_pretrained(out)
    tokens.save(str(out / "tokenizer.json"), pretty=False)
    tensors = {}
    for index, text in enumerate(texts if model_type == "esm" else TEXTS):
        ids = tokens.encode(text.replace("{mask}", mask)).ids
        with torch.no_grad():
            logits = made(input_ids=torch.tensor([ids])).logits[0]
        tensors[f"ids.{index}"] = torch.tensor(ids, dtype=torch.float32)
        tensors[f"logits.{index}"] = logits.contiguous()
    save_file(tensors, out / "expected.safetensors")
    names = [name for name in made.state_dict() if "layer" not in name and "embeddings" not in name]
    print(model_type, f"largest {logits.abs().max():.2f}", names)


def main():
    out = Path(sys.argv[1])
    for model_type in sys.argv[2:] or ["bert", *MODELS]:
        folder = out / model_type
        folder.mkdir(parents=True, exist_ok=True)
        make(model_type, folder)


main()
