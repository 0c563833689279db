"""Other kinds of GGUF files, and golden numbers for crates/core/tests/engine/gguf.rs, by transformers and SentencePiece:

    gguf_kinds.py OUT_FOLDER

Needs the packages of tests/peft/requirements.txt, `gguf` and `sentencepiece`. Writes

- OUT_FOLDER/sentencepiece.gguf, a small Llama with SentencePiece's BPE, whose angles are stretched as Llama 3.1's by a tensor
  `rope_freqs.weight`, which is made as llama.cpp's converter makes it;
- OUT_FOLDER/gpt2.gguf, a small GPT-2 with byte-level BPE, whose maps lie as llama.cpp's converter turns them;
- for each NAME-expected.safetensors, with the ids of each text as `ids.N` and its hidden states as `hidden.N`.
"""

import io
import json
import math
import sys
from pathlib import Path

import gguf
import numpy
import sentencepiece
import torch
import transformers
from architectures import draw
from gguf_file import pairs
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

TEXTS = ["Where is my card?", "hi", " two  spaces, é, 你 and 🙂\nthe end ", "the card is my own card, and the fee is mine"]
CORPUS = TEXTS + ["the card is my own", "a refund of the fee", "where is the fee that is mine?", "my own card is here and there"]
LONGEST = 128
ROPE = dict(rope_theta=500.0, rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0)
ROPE["original_max_position_embeddings"] = 32


def pieces():
    """A SentencePiece model whose settings are Llama 2's."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4), model_writer=made, model_type="bpe", vocab_size=340, byte_fallback=True,
        character_coverage=0.99, add_dummy_prefix=True, remove_extra_whitespaces=False, normalization_rule_name="identity",
        split_digits=True, allow_whitespace_only_pieces=True, minloglevel=2,
    )  # fmt: skip
    return sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())


def kind(pieces, index):
    if pieces.is_unknown(index):
        return gguf.TokenType.UNKNOWN
    if pieces.is_control(index):
        return gguf.TokenType.CONTROL
    return gguf.TokenType.BYTE if pieces.is_byte(index) else gguf.TokenType.NORMAL


def factors(width):
    """As convert_hf_to_gguf.py of llama.cpp has them."""
    found = []
    for index in range(width // 2):
        length = 2 * math.pi * ROPE["rope_theta"] ** (2 * index / width)
        original = ROPE["original_max_position_embeddings"]
        slow, fast = original / ROPE["low_freq_factor"], original / ROPE["high_freq_factor"]
        smooth = (original / length - ROPE["low_freq_factor"]) / (ROPE["high_freq_factor"] - ROPE["low_freq_factor"])
        between = 1 / ((1 - smooth) / ROPE["factor"] + smooth)
        found.append(1 if length < fast else ROPE["factor"] if length > slow else between)
    return numpy.array(found, dtype=numpy.float32)


def write(writer):
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def expect(model, ids, path):
    tensors = {}
    for index, row in enumerate(ids):
        with torch.no_grad():
            hidden = model(input_ids=torch.tensor([row])).last_hidden_state[0]
        tensors[f"ids.{index}"] = torch.tensor(row, dtype=torch.float32)
        tensors[f"hidden.{index}"] = hidden.contiguous()
        print(path.stem, len(row), f"largest {hidden.abs().max():.2f}")
    save_file(tensors, path)
    path.chmod(0o644)


def llama(out):
    tokens = pieces()
    size, heads, key_heads, width = tokens.get_piece_size(), 4, 2, 32
    torch.manual_seed(8)
    config = transformers.LlamaConfig(
        vocab_size=size, hidden_size=width, intermediate_size=64, num_hidden_layers=2, num_attention_heads=heads,
        num_key_value_heads=key_heads, max_position_embeddings=LONGEST, rms_norm_eps=1e-5, rope_parameters=ROPE,
    )  # fmt: skip
    model = transformers.LlamaModel(config).eval()
    draw(model)
    writer = gguf.GGUFWriter(out / "sentencepiece.gguf", "llama")
    sizes(writer, width, 2, 64, heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(ROPE["rope_theta"])
    writer.add_rope_dimension_count(width // heads)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([tokens.id_to_piece(index) for index in range(size)])
    writer.add_token_scores([tokens.get_score(index) for index in range(size)])
    writer.add_token_types([kind(tokens, index) for index in range(size)])
    writer.add_bos_token_id(tokens.bos_id())
    writer.add_eos_token_id(tokens.eos_id())
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
    for name, tensor in model.state_dict().items():
        values = tensor.numpy()
        turned = {"q_proj.weight": heads, "k_proj.weight": key_heads}.get(".".join(name.split(".")[-2:]))
        writer.add_tensor(theirs(names, f"model.{name}"), pairs(values, turned) if turned else values)
    writer.add_tensor("rope_freqs.weight", factors(width // heads))
    write(writer)
    ids = [tokens.encode(text, add_bos=True) for text in TEXTS]
    expect(model, ids, out / "sentencepiece-expected.safetensors")


def gpt2(out):
    tokens = Tokenizer(models.BPE())
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    special, alphabet = ["<|endoftext|>"], sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=320, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokens.train_from_iterator(CORPUS * 4, trainer)
    size = tokens.get_vocab_size()
    torch.manual_seed(9)
    config = transformers.GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=LONGEST)
    model = transformers.GPT2Model(config).eval()
    draw(model)
    writer = gguf.GGUFWriter(out / "gpt2.gguf", "gpt2")
    sizes(writer, 32, 2, 128, 4)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    words = [tokens.id_to_token(index) for index in range(size)]
    writer.add_token_list(words)
    writer.add_token_types([gguf.TokenType.CONTROL if word in special else gguf.TokenType.NORMAL for word in words])
    writer.add_token_merges([" ".join(merge) for merge in json.loads(tokens.to_str())["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT2, 2)
    for name, tensor in model.state_dict().items():
        is_turned = any(part in name for part in ("c_attn.weight", "c_proj.weight", "c_fc.weight"))
        writer.add_tensor(theirs(names, f"transformer.{name}"), (tensor.T if is_turned else tensor).contiguous().numpy())
    write(writer)
    expect(model, [tokens.encode(text).ids for text in TEXTS], out / "gpt2-expected.safetensors")


def sizes(writer, width, layers, wide, heads):
    writer.add_context_length(LONGEST)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(wide)
    writer.add_head_count(heads)


def theirs(names, name):
    path, kind = name.rsplit(".", 1)
    return f"{names.get_name(path)}.{kind}"


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    llama(out)
    gpt2(out)


main()
