"""The defaults of a job with nothing but its file, compared with what a user would do otherwise. Prints a table.

    python3 benches/quality.py [--stsb FILE] [--shapes NAME,…] [--peft]

For each dataset of shapes.py: the figure of the default on held-out rows and its seconds, and the best of the alternatives: logistic
regression, ridge regression and nearest neighbours on frozen embeddings of the base (of both texts apart, with their difference and
product, for pairs), the cosine of the two embeddings, and with --peft LoRA by PyTorch + PEFT. The figure is accuracy, macro F1 (imbalanced
classes), micro F1 (label sets, entities) or Spearman's correlation (numbers), in percent, with its standard error over the held-out rows
(bootstrap).
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import common
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


def alternatives(shape, train, test, cosines, targets):
    """Predictions by name."""
    if shape.kind == "value":
        yield "ridge", make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))).fit(train, targets).predict(test)
        yield "nearest neighbours", KNeighborsRegressor(10).fit(train, targets).predict(test)
        if cosines is not None:
            yield "cosine", cosines
    elif shape.kind == "labels":
        binarizer = MultiLabelBinarizer()
        model = OneVsRestClassifier(LogisticRegression(C=10, max_iter=2000)).fit(train, binarizer.fit_transform(targets))
        yield "logistic regression", [list(labels) for labels in binarizer.inverse_transform(model.predict(test))]
    elif shape.kind == "label":
        for strength in (1, 10, 100):
            yield f"logistic regression, C {strength}", list(LogisticRegression(C=strength, max_iter=2000).fit(train, targets).predict(test))
        yield "nearest neighbours", list(KNeighborsClassifier(5).fit(train, targets).predict(test))


def peft(shape, folder, path):
    """Predictions of a LoRA by PyTorch + PEFT, which is trained in another process."""
    test = Path(folder) / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in shape.test))
    return common.run(sys.executable, "benches/quality_peer.py", common.MODEL, str(path), str(test), shape.kind)["predictions"]


def measure(client, shape, use_peft):
    with tempfile.TemporaryDirectory() as folder:
        path = shape.write(folder)
        started, name = time.perf_counter(), shape.name.split()[0]
        job = client.post_file("/jobs", "job", {"name": name}, "dataset", path.name, path.read_bytes())["id"]
        view = client.await_job(job, lambda view: view["adapter_id"])
        seconds = time.perf_counter() - started
        actual = [row[shape.kind] for row in shape.test]
        default = with_error(shape, actual, predicted(client, shape, shape.test, name))
        others = {}
        if shape.kind != "entities":
            (train, _), (test, cosines) = features(client, shape.train), features(client, shape.test)
            found = alternatives(shape, train, test, cosines, [row[shape.kind] for row in shape.train])
            others = {other: with_error(shape, actual, answers) for other, answers in found}
        if use_peft and shape.kind in ("label", "value", "labels"):
            others["PEFT, LoRA"] = with_error(shape, actual, peft(shape, folder, path))
        return view["method"]["type"], default, seconds, others


def percent(value, error):
    return f"{100 * value:.1f} ± {100 * error:.1f}"


def main():
    parser = common.arguments(__doc__, None, "espalier")
    parser.add_argument("--stsb", help="STS-B's training pairs: sentence, sentence, score from 0 to 5, without a header")
    parser.add_argument("--shapes", help="names, or their beginnings, separated by commas; all by default")
    parser.add_argument("--peft", action="store_true")
    options = parser.parse_args()
    program, names = common.server_program(options.espalier), options.shapes and tuple(options.shapes.split(","))
    common.header("dataset", "default", "figure", "seconds", "best alternative", "figure", "difference")
    for shape in shapes.all_shapes(options.stsb):
        if names and not shape.name.startswith(names):
            continue
        with common.Server(program) as server:
            method, default, seconds, others = measure(Client(server.address), shape, options.peft)
        common.note(f"{shape.name}: {others}")
        best = max(others, key=lambda other: others[other][0], default=None)
        told = (best, percent(*others[best]), f"{100 * (default[0] - others[best][0]):+.1f}") if best else ("none", "", "")
        common.row(shape.name, method, percent(*default), f"{seconds:.1f}", *told)


if __name__ == "__main__":
    main()
