"""Embeds texts in process with the runtimes of others: the peer of embeddings.py. Prints one JSON line.

    .venv/bin/python benches/embeddings_peer.py PEER ORDER SECONDS THREADS TEXTS_FILE

PEER is onnxruntime (fp32), onnxruntime-int8 (dynamic quantization of a graph fused for BERT), openvino (its own choice
of precision on this CPU), fastembed (fp32, by ONNX Runtime), torch (PyTorch in fp32 with torch.compile) or torchao-int8
(the same with weights and activations in 8 bits by torchao). ORDER is sorted (by length, over all texts) or arrival. The
files of the models are made once, beside the base model. Tokenizing counts, as over HTTP. Mean pooling and L2
normalization, as all-MiniLM-L6-v2 asks for.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import numpy
from tokenizers import Tokenizer

MODEL = Path(__file__).resolve().parent.parent / "models/all-MiniLM-L6-v2"
BATCH, MAX_LENGTH = 32, 128


def exported():
    """The model as an ONNX file with any number of texts and tokens."""
    path = MODEL.parent / "all-MiniLM-L6-v2.onnx"
    if not path.exists():
        import torch
        from transformers import AutoModel

        class Hidden(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.bert = AutoModel.from_pretrained(MODEL, attn_implementation="eager")

            def forward(self, input_ids, attention_mask, token_type_ids):
                inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
                return self.bert(**inputs).last_hidden_state

        ids = torch.ones((2, 9), dtype=torch.int64)
        names = ["input_ids", "attention_mask", "token_type_ids"]
        axes = {name: {0: "texts", 1: "tokens"} for name in [*names, "hidden"]}
        torch.onnx.export(
            Hidden().eval(), (ids, ids, ids * 0), str(path), input_names=names, output_names=["hidden"], dynamic_axes=axes,
            opset_version=17, dynamo=False,
        )
    return path


def fused():
    """The same with the attention, norms and activations of BERT as single operators."""
    path = MODEL.parent / "all-MiniLM-L6-v2.fused.onnx"
    if not path.exists():
        from onnxruntime.transformers import optimizer

        optimizer.optimize_model(str(exported()), model_type="bert", num_heads=12, hidden_size=384).save_model_to_file(str(path))
    return path


def quantized():
    path = MODEL.parent / "all-MiniLM-L6-v2.int8.onnx"
    if not path.exists():
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        options = {"DefaultTensorType": onnx.TensorProto.FLOAT}
        quantize_dynamic(str(fused()), str(path), per_channel=True, weight_type=QuantType.QInt8, extra_options=options)
    return path


def onnxruntime_session(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}

    def hidden(ids, mask):
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return session.run(None, {name: value for name, value in inputs.items() if name in names})[0]

    return hidden


def openvino_session(path, threads):
    import openvino

    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 1}
    model = openvino.Core().compile_model(str(path), "CPU", settings)
    names = {entry.get_any_name() for entry in model.inputs}

    def hidden(ids, mask):
        inputs = {"input_ids": ids, "attention_mask": mask, "token_type_ids": numpy.zeros_like(ids)}
        return model({name: value for name, value in inputs.items() if name in names})[0]

    return hidden


def torch_session(threads, int8=False):
    import torch
    from transformers import AutoModel

    torch.set_num_threads(threads)
    model = AutoModel.from_pretrained(MODEL, add_pooling_layer=False, attn_implementation="sdpa").eval()
    if int8:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

        quantize_(model, Int8DynamicActivationInt8WeightConfig())
    model.compile(dynamic=True)

    @torch.inference_mode()
    def hidden(ids, mask):
        return model(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()

    return hidden


def pooled(hidden):
    """Embeds texts by their hidden states."""
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding()

    def embed(texts):
        encodings = tokenizer.encode_batch(texts)
        ids = numpy.array([one.ids for one in encodings], dtype=numpy.int64)
        mask = numpy.array([one.attention_mask for one in encodings], dtype=numpy.int64)
        weights = mask[..., None].astype(numpy.float32)
        sums = (hidden(ids, mask) * weights).sum(1) / weights.sum(1)
        return sums / numpy.linalg.norm(sums, axis=1, keepdims=True)

    return embed


def fastembed_model(threads):
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    # fastembed reads the tokenizer's files beside the ONNX file.
    folder = MODEL.parent / "all-MiniLM-L6-v2.fastembed"
    if not (folder / "model.onnx").exists():
        folder.mkdir(exist_ok=True)
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copy(MODEL / name, folder)
        shutil.copy(exported(), folder / "model.onnx")
    name = "espalier/all-MiniLM-L6-v2"
    TextEmbedding.add_custom_model(
        model=name, pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf=name), dim=384, model_file="model.onnx"
    )
    model = TextEmbedding(name, specific_model_path=str(folder), threads=threads)
    return lambda texts: list(model.embed(texts, batch_size=BATCH))


# Functions of the number of threads that return a function from texts to their embeddings.
PEERS = {
    "onnxruntime": lambda threads: pooled(onnxruntime_session(fused(), threads)),
    "onnxruntime-int8": lambda threads: pooled(onnxruntime_session(quantized(), threads)),
    "openvino": lambda threads: pooled(openvino_session(exported(), threads)),
    "fastembed": fastembed_model,
    "torch": lambda threads: pooled(torch_session(threads)),
    "torchao-int8": lambda threads: pooled(torch_session(threads, int8=True)),
}


def main():
    peer, order, seconds, threads, file = sys.argv[1:]
    texts = json.loads(Path(file).read_text())
    if order == "sorted":
        texts = sorted(texts, key=len)
    embed = PEERS[peer](int(threads))
    batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
    # All lengths once, so that memory is allocated.
    embeddings = {text: row.tolist() for batch in batches for text, row in zip(batch, embed(batch), strict=True)}
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < float(seconds):
        # Evenly over the lengths, so that the end of the time does not favour short texts.
        for batch in batches[count % 7 :: 7]:
            embed(batch)
            count += len(batch)
    rate = count / (time.perf_counter() - start)
    print(json.dumps({"texts_per_second": rate, "embeddings": embeddings}))


if __name__ == "__main__":
    main()
