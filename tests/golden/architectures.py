"""Golden numbers for crates/core/tests/engine/architectures.rs: the last layer's hidden states of small random models, by transformers.

    architectures.py OUT_FOLDER [MODEL_TYPE …]

Writes OUT_FOLDER/MODEL_TYPE/{config.json,model.safetensors,tokenizer.json} and expected.safetensors, which holds the ids of
each text as `ids.N` and its hidden states as `hidden.N`, and behind the virtual tokens `prompt`, which are given as
embeddings as PEFT does, as `prompted.N`. The texts are padded together. Weights are drawn wide (0.2),
biases and norms too, so that every path through a model shows in its output.
"""

import string
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = """a account arrive at card cash change fee home i is how it lost money my new not of on order pay please refund
stolen the to top transfer up was what when where why will with""".split()
TEXTS = [
    "Where is my card?",
    "hi",
    "I ordered a new card over a week ago, and it still has not arrived. Can you tell me where it is?",
    "please pay",
]
PROTEINS = [
    "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQAPILSRVGDGTQ",
    "GAV",
    "MKT<mask>YIAKQR<mask>ISF",
    "WXY",
]
SIZES = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=128,
)


def word_pieces(cls, pad, sep, unk, mask):
    """WordPiece over letters and a few words; the special tokens come first, in this order."""
    special = [cls, pad, sep, unk, mask]
    letters = list(string.ascii_lowercase)
    pieces = special + list(",.?") + letters + ["##" + letter for letter in letters] + WORDS
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    made.add_special_tokens(special)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return framed(made, cls, sep)


def amino_acids():
    """One token per letter, in either case."""
    special = ["<cls>", "<pad>", "<eos>", "<unk>"]
    tokens = special + list("lagvsertidpkqnfymhwcxbuzo.-") + ["<mask>"]
    made = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token="<unk>"))
    made.add_special_tokens(special + ["<mask>"])
    made.normalizer = normalizers.Lowercase()
    letters = pre_tokenizers.Split(Regex("."), "isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), letters])
    return framed(made, "<cls>", "<eos>")


def framed(made, cls, sep):
    made.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:0 {sep}:0",
        special_tokens=[(cls, made.token_to_id(cls)), (sep, made.token_to_id(sep))],
    )
    return made


def roberta(size):
    return transformers.RobertaConfig(vocab_size=size, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **SIZES)


def xlm_roberta(size):
    return transformers.XLMRobertaConfig(vocab_size=size, type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, **SIZES)


def camembert(size):
    return transformers.CamembertConfig(vocab_size=size, type_vocab_size=2, pad_token_id=1, **SIZES)


def distilbert(size):
    return transformers.DistilBertConfig(
        vocab_size=size, dim=32, hidden_dim=64, n_layers=2, n_heads=4, max_position_embeddings=128, pad_token_id=1
    )


def esm(size):
    return transformers.EsmConfig(
        vocab_size=size,
        mask_token_id=size - 1,
        pad_token_id=1,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        layer_norm_eps=1e-5,
        **SIZES,
    )


def modernbert(size):
    sizes = SIZES | dict(intermediate_size=40)
    return transformers.ModernBertConfig(
        vocab_size=size,
        pad_token_id=1,
        cls_token_id=0,
        bos_token_id=0,
        sep_token_id=2,
        eos_token_id=2,
        local_attention=8,
        **sizes,
    )


def mpnet(size):
    return transformers.MPNetConfig(vocab_size=size, pad_token_id=1, layer_norm_eps=1e-5, **SIZES)


def llama(size):
    """Three heads of queries for each of keys, and angles that are stretched as Llama 3.1's."""
    rope = dict(rope_theta=500.0, rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)
    rope["original_max_position_embeddings"] = 32
    sizes = SIZES | dict(hidden_size=48, num_attention_heads=6, num_key_value_heads=2, attention_bias=True)
    sizes |= dict(rms_norm_eps=1e-5, pad_token_id=1, bos_token_id=0, eos_token_id=2, rope_parameters=rope)
    return transformers.LlamaConfig(vocab_size=size, **sizes)


def decoder(cls, rope, **fields):
    sizes = SIZES | dict(num_key_value_heads=2, pad_token_id=1, bos_token_id=0, eos_token_id=2, rope_parameters=rope)
    return lambda size: cls(vocab_size=size, **sizes | fields)


YARN = dict(rope_theta=1000.0, rope_type="yarn", factor=4.0, original_max_position_embeddings=32)
LINEAR = dict(rope_theta=10000.0, rope_type="linear", factor=2.0)
PLAIN_ROPE = dict(rope_theta=10000.0, rope_type="default")
mistral = decoder(transformers.MistralConfig, LINEAR, sliding_window=14)
qwen2 = decoder(transformers.Qwen2Config, YARN, use_sliding_window=True, sliding_window=5, max_window_layers=1)
qwen3 = decoder(transformers.Qwen3Config, PLAIN_ROPE, head_dim=16)



def gpt2(size):
    return transformers.GPT2Config(
        vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_inner=64, n_positions=128, pad_token_id=1, bos_token_id=0,
        eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip


LATIN = ("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]")
PLAIN = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
MODELS = {
    "roberta": (roberta, lambda: word_pieces(*PLAIN), TEXTS),
    "xlm-roberta": (xlm_roberta, lambda: word_pieces(*PLAIN), TEXTS),
    "camembert": (camembert, lambda: word_pieces(*PLAIN), TEXTS),
    "distilbert": (distilbert, lambda: word_pieces(*LATIN), TEXTS),
    "esm": (esm, amino_acids, PROTEINS),
    "modernbert": (modernbert, lambda: word_pieces(*LATIN), TEXTS),
    "mpnet": (mpnet, lambda: word_pieces(*PLAIN), TEXTS),
    "llama": (llama, lambda: word_pieces(*PLAIN), TEXTS),
    "mistral": (mistral, lambda: word_pieces(*PLAIN), TEXTS),
    "qwen2": (qwen2, lambda: word_pieces(*PLAIN), TEXTS),
    "qwen3": (qwen3, lambda: word_pieces(*PLAIN), TEXTS),
    "gpt2": (gpt2, lambda: word_pieces(*PLAIN), TEXTS),
}


def draw(model):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            is_gain = ("norm" in name.lower() or "ln_" in name) and name.endswith("weight")
            parameter.normal_(1.0 if is_gain else 0.0, 0.2)


def make(model_type, out):
    config, tokenizer, texts = MODELS[model_type]
    torch.manual_seed(20)
    tokens = tokenizer()
    made = transformers.AutoModel.from_config(config(tokens.get_vocab_size()), attn_implementation="eager").eval()
    draw(made)
    made.save_pretrained(out)
    tokens.save(str(out / "tokenizer.json"), pretty=False)
    ids = [tokens.encode(text).ids for text in texts]
    longest = max(map(len, ids))
    padded = torch.tensor([row + [1] * (longest - len(row)) for row in ids])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in ids])
    with torch.no_grad():
        hidden = made(input_ids=padded, attention_mask=mask).last_hidden_state
    words = made.get_input_embeddings()
    prompt = torch.randn(5, words.embedding_dim) * 0.2
    tensors = {"prompt": prompt}
    for index, row in enumerate(ids):
        with torch.no_grad():
            embedded = torch.cat([prompt, words(torch.tensor(row))])[None]
            behind = made(inputs_embeds=embedded, attention_mask=torch.ones(embedded.shape[:2], dtype=torch.long))
        tensors[f"prompted.{index}"] = behind.last_hidden_state[0].contiguous()
        tensors[f"ids.{index}"] = torch.tensor(row, dtype=torch.float32)
        tensors[f"hidden.{index}"] = hidden[index, : len(row)].contiguous()
    save_file(tensors, out / "expected.safetensors")
    print(model_type, [len(row) for row in ids], f"largest {hidden.abs().max():.2f}")


def main():
    out = Path(sys.argv[1])
    for model_type in sys.argv[2:] or MODELS:
        folder = out / model_type
        folder.mkdir(parents=True, exist_ok=True)
        make(model_type, folder)


if __name__ == "__main__":
    main()
