"""The defaults of a job with nothing but its file, compared with what a user would do otherwise. Prints a table.

    python3 benches/quality.py [--base sentence|plain|decoder] [--stsb FILE] [--gsm8k FILE] [--shapes NAME,…] [--peft]
                               [--train-rows N] [--int8]

The base is the sentence encoder all-MiniLM-L6-v2, the same without its sentence-transformers files (an encoder as any), or the decoder
SmolLM2-135M-Instruct. For each dataset of shapes.py: the figure of the default on held-out rows and its seconds, and the best of the
alternatives: logistic regression, ridge regression and nearest neighbours on frozen embeddings of the base (of both texts apart, with their
difference and product, for pairs), the cosine of the two embeddings, and with --peft LoRA by PyTorch + PEFT. The figure is accuracy, macro F1
(imbalanced classes), micro F1 (label sets, entities) or Spearman's correlation (numbers), in percent, with its standard error over the
held-out rows (bootstrap).

Datasets with completions and preferences are for the decoder alone. Their figure is the probability of a held-out token (the geometric mean)
and the share of held-out pairs with the larger reward for the chosen answer, both at the best epoch; the alternatives are the base and
PEFT's LoRA (SFT, DPO).
"""

import contextlib
import json
import math
import shutil
import sys
import tempfile
import time
from pathlib import Path

import common
import decoder
import numpy as np
import shapes
from client import Client
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import accuracy_score, f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MultiLabelBinarizer, StandardScaler

BATCH = 32
RESAMPLES = 200
PRECISIONS = ("f32", "int8")


def spearman(one, other):
    ranks = [np.argsort(np.argsort(values, kind="stable"), kind="stable") for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


def spans(row):
    return {(span["start"], span["end"], span["label"]) for span in row}


def span_f1(actual, predicted):
    right = sum(len(spans(one) & spans(other)) for one, other in zip(actual, predicted, strict=True))
    return 2 * right / max(1, sum(map(len, actual)) + sum(map(len, predicted)))


def figure(shape, actual, predicted):
    if shape.kind == "value":
        return spearman(np.array(actual), np.array(predicted))
    if shape.kind == "entities":
        return span_f1(actual, predicted)
    if shape.kind == "labels":
        binarizer = MultiLabelBinarizer().fit([*actual, *predicted])
        return f1_score(binarizer.transform(actual), binarizer.transform(predicted), average="micro", zero_division=0)
    if "imbalanced" in shape.name:
        return f1_score(actual, predicted, average="macro")
    return accuracy_score(actual, predicted)


def with_error(shape, actual, predicted):
    """The figure, and its standard deviation over resampled rows."""
    chosen, count = np.random.default_rng(0), len(actual)
    samples = (chosen.integers(0, count, count) for _ in range(RESAMPLES))
    resampled = [figure(shape, [actual[index] for index in sample], [predicted[index] for index in sample]) for sample in samples]
    return figure(shape, actual, predicted), float(np.std(resampled))


def inputs(rows):
    return [{"text": row["text"], "text_pair": row["text_pair"]} if "text_pair" in row else row["text"] for row in rows]


def predicted(client, shape, rows, adapter):
    texts = inputs(rows)
    answers = [answer for start in range(0, len(texts), BATCH) for answer in client.predict(texts[start : start + BATCH], adapter)]
    values = [answer[shape.kind] for answer in answers]
    return [[one["label"] for one in labels] for labels in values] if shape.kind == "labels" else values


def embeddings(client, texts):
    answers = [answer for start in range(0, len(texts), BATCH) for answer in client.predict(texts[start : start + BATCH])]
    return np.array([answer["embedding"] for answer in answers])


def features(client, rows):
    """Embeddings; of pairs (u, v, |u - v|, u * v), and their cosine."""
    first = embeddings(client, [row["text"] for row in rows])
    if "text_pair" not in rows[0]:
        return first, None
    second = embeddings(client, [row["text_pair"] for row in rows])
    return np.hstack([first, second, np.abs(first - second), first * second]), np.sum(first * second, axis=1)


def scaled(model):
    return make_pipeline(StandardScaler(), model)


def alternatives(shape, train, test, cosines, targets):
    """Predictions by name."""
    if shape.kind == "value":
        yield "ridge", scaled(RidgeCV(np.logspace(-2, 4, 13))).fit(train, targets).predict(test)
        yield "nearest neighbours", KNeighborsRegressor(10).fit(train, targets).predict(test)
        if cosines is not None:
            yield "cosine", cosines
    elif shape.kind == "labels":
        binarizer = MultiLabelBinarizer()
        answers = binarizer.fit_transform(targets)
        for name, model in ("", LogisticRegression(C=10, max_iter=2000)), (", standardised", scaled(LogisticRegression(max_iter=2000))):
            fitted = OneVsRestClassifier(model).fit(train, answers)
            yield f"logistic regression{name}", [list(labels) for labels in binarizer.inverse_transform(fitted.predict(test))]
    elif shape.kind == "label":
        for strength in (1, 10, 100):
            yield f"logistic regression, C {strength}", list(LogisticRegression(C=strength, max_iter=2000).fit(train, targets).predict(test))
        for strength in (0.01, 1):
            fitted = scaled(LogisticRegression(C=strength, max_iter=2000)).fit(train, targets)
            yield f"logistic regression, standardised, C {strength}", list(fitted.predict(test))
        yield "nearest neighbours", list(KNeighborsClassifier(5).fit(train, targets).predict(test))


def write_test(shape, folder):
    path = Path(folder) / "test.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in shape.test))
    return path


def peft(model, shape, folder, path):
    """Predictions of a LoRA by PyTorch + PEFT, which is trained in another process."""
    command = [sys.executable, "benches/quality_peer.py", model, str(path), str(write_test(shape, folder)), shape.kind]
    return common.run(*command)["predictions"]


def train(client, path, job):
    """The finished job, and its seconds."""
    started = time.perf_counter()
    id = client.post_file("/jobs", "job", job, "dataset", path.name, path.read_bytes())["id"]
    view = client.await_job(id, lambda view: view["adapter_id"])
    return view, time.perf_counter() - started


def measure(client, shape, path, peer, precisions):
    """The method of the default, its figure and seconds, and the figures of the alternatives."""
    name = shape.name.split()[0]
    view, seconds = train(client, path, {"name": name})
    actual = [row[shape.kind] for row in shape.test]
    default = with_error(shape, actual, predicted(client, shape, shape.test, name))
    others = {}
    if shape.kind != "entities":
        (inputs, _), (test, cosines) = features(client, shape.train), features(client, shape.test)
        found = alternatives(shape, inputs, test, cosines, [row[shape.kind] for row in shape.train])
        others = {other: with_error(shape, actual, answers) for other, answers in found}
    for precision in precisions:
        job = {"name": f"{name}-{precision}", "method": {"type": "lora"}, "hyperparameters": {"precision": precision}}
        train(client, path, job)
        others[f"LoRA in {precision}"] = with_error(shape, actual, predicted(client, shape, shape.test, job["name"]))
    if peer and shape.kind in ("label", "value", "labels"):
        others["PEFT, LoRA"] = with_error(shape, actual, peft(peer, shape, path.parent, path))
    return view["method"]["type"], default, seconds, others


def measure_generation(client, shape, path, peer):
    """As `measure`, of completions and preferences."""
    task = {"type": {"completion": "causal_language_model", "preference": "preference"}[shape.kind]}
    test = write_test(shape, path.parent)
    held_out = client.post_file("/datasets", "options", {"task": task}, "dataset", test.name, test.read_bytes())["id"]
    view, seconds = train(client, path, {"name": shape.name.split()[0], "task": task, "validation": {"dataset_id": held_out}})
    metrics, count = view["metrics"]["validation"], len(shape.test)
    figure = {"completion": lambda: math.exp(-metrics["loss"]), "preference": lambda: metrics["accuracy"]}[shape.kind]()
    error = lambda share: math.sqrt(share * (1 - share) / count) if shape.kind == "preference" else math.nan
    others = {}
    if peer:
        found = common.run(sys.executable, "benches/quality_lm_peer.py", peer, str(path), str(test), shape.kind)
        others = {name: (value, error(value)) for name, value in found.items()}
    return view["method"]["type"], (figure, error(figure)), seconds, others


def percent(value, error):
    return f"{100 * value:.1f}" if math.isnan(error) else f"{100 * value:.1f} ± {100 * error:.1f}"


@contextlib.contextmanager
def base_model(name):
    """The base as espalier and as PyTorch read it."""
    if name == "decoder":
        decoder.fetch()
        yield decoder.FILE, decoder.FOLDER
    elif name == "sentence":
        yield common.MODEL, common.MODEL
    else:
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / "plain-encoder"
            shutil.copytree(common.MODEL, plain, ignore=shutil.ignore_patterns("modules.json", "*_Pooling", "*sentence*"))
            yield plain, plain


def main():
    parser = common.arguments(__doc__, None, "espalier")
    parser.add_argument("--base", choices=["sentence", "plain", "decoder"], default="sentence")
    parser.add_argument("--stsb", help="STS-B's training pairs: sentence, sentence, score from 0 to 5, without a header")
    parser.add_argument("--gsm8k", help="GSM8K's training rows: JSON lines with question and answer")
    parser.add_argument("--shapes", help="names, or their beginnings, separated by commas; all by default")
    parser.add_argument("--peft", action="store_true")
    parser.add_argument("--int8", action="store_true", help="LoRA in f32 and in int8 as alternatives")
    parser.add_argument("--train-rows", type=int, help="the first rows of each dataset alone; PEFT trains at most 30 epochs of them")
    options = parser.parse_args()
    program, names = common.server_program(options.espalier), options.shapes and tuple(options.shapes.split(","))
    common.header("dataset", "default", "figure", "seconds", "best alternative", "figure", "difference")
    for shape in shapes.all_shapes(options.stsb, options.gsm8k):
        if names and not shape.name.startswith(names) or shape.generates and options.base != "decoder":
            continue
        shape.train = shape.train[: options.train_rows]
        with base_model(options.base) as (model, peer), common.Server(program, model=model) as server, tempfile.TemporaryDirectory() as folder:
            client, path = Client(server.address), shape.write(folder)
            peer = peer if options.peft else None
            if shape.generates:
                method, default, seconds, others = measure_generation(client, shape, path, peer)
            else:
                method, default, seconds, others = measure(client, shape, path, peer, PRECISIONS if options.int8 else ())
        common.note(f"{shape.name}: {others}")
        best = max(others, key=lambda other: others[other][0], default=None)
        best_cells = (best, percent(*others[best]), f"{100 * (default[0] - others[best][0]):+.1f}") if best else ("none", "", "")
        common.row(shape.name, method, percent(*default), f"{seconds:.1f}", *best_cells)


if __name__ == "__main__":
    main()
