"""Makes the tiny BERT that the tests run on: `make_tiny.py <out dir>`.

Two layers of width 32 over about a hundred word pieces, random weights from a fixed seed, drawn wide enough (0.2) that
every path through the model shows in its output. The files are those of a sentence-transformers model; as in the real
all-MiniLM-L6-v2, tokenizer.json carries a truncation and a fixed padding that a caller has to override.
"""

import json
import string
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = """a account address app atm balance bank can card cash change charge d do does fee for help how i is lost money
my new not o of on order pay payment pin refund s stolen the to top transfer up was what when where why with""".split()
PIECES = ["##ed", "##er", "##es", "##ing", "##ly", "##ment", "##s"]


def vocabulary() -> dict[str, int]:
    letters = list(string.ascii_lowercase)
    pieces = SPECIAL + list("!',-.?") + list(string.digits) + letters + ["##" + letter for letter in letters]
    pieces += ["##" + digit for digit in string.digits] + WORDS + PIECES
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def tokenizer(vocab: dict[str, int]) -> Tokenizer:
    made = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    made.add_special_tokens(SPECIAL)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocab["[CLS]"]), ("[SEP]", vocab["[SEP]"])],
    )
    made.decoder = decoders.WordPiece()
    made.enable_truncation(32)
    made.enable_padding(length=32, pad_id=vocab["[PAD]"], pad_token="[PAD]")
    return made


def model(vocabulary_size: int) -> BertModel:
    torch.manual_seed(20)
    config = BertConfig(
        vocab_size=vocabulary_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    made = BertModel(config)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            centre = 1.0 if name.endswith("LayerNorm.weight") else 0.0
            parameter.normal_(centre, 0.2)
    return made.eval()


def main(out: Path) -> None:
    vocab = vocabulary()
    model(len(vocab)).save_pretrained(out)
    tokenizer(vocab).save(str(out / "tokenizer.json"), pretty=False)
    special = {key + "_token": f"[{key.upper()}]" for key in ["cls", "mask", "pad", "sep", "unk"]}
    settings = {"do_lower_case": True, "model_max_length": 128, "tokenizer_class": "BertTokenizer", **special}
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (out / "1_Pooling").mkdir(exist_ok=True)
    (out / "1_Pooling" / "config.json").write_text(json.dumps(pooling, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
