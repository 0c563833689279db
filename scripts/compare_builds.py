"""Compares two builds of espalier: the API's shape, the metrics' names, and the version hashes of small adapters.

    scripts/compare-builds.sh OLD_PROGRAM NEW_PROGRAM

Trains one adapter per method and per task with each program on the tiny fixtures, over HTTP, and compares their versions.
Renames, and paths of the document under `changed`, that `compare_builds_renames.json` lists are intended; every other difference is printed, and the exit code is 1.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
RENAMES = json.loads((ROOT / "scripts/compare_builds_renames.json").read_text())
METHODS = [
    {"type": "lora", "dropout": 0.1},
    {"type": "lora", "rank": 3, "rslora": True, "dora": True, "target_modules": "all-linear", "bias": "lora_only"},
    {"type": "ia3"},
    {"type": "prompt_tuning", "num_virtual_tokens": 5},
    {"type": "p_tuning", "num_virtual_tokens": 3, "encoder_hidden_size": 10},
    {"type": "prefix_tuning", "num_virtual_tokens": 4},
    {"type": "bottleneck", "reduction_factor": 2.0},
    {"type": "bias"},
    {"type": "layer_norm"},
    {"type": "vera", "rank": 12},
    {"type": "head"},
]
TEXTS = [f"{question} {subject} number {index}" for index, (question, subject) in enumerate(
    [(q, s) for s in ("my card", "a transfer", "this payment", "cash")
     for q in ("when will it arrive", "why was I charged", "how can I change it")] * 2)]
LABELS = ["arrival", "fee", "help"]


def rows(task):
    """Examples of a task, 24 of them."""
    kind = task["type"]
    for index, text in enumerate(TEXTS):
        label = LABELS[index % 3]
        if kind == "sequence_classification":
            yield {"text": text, "labels": [label, "any"]} if task.get("multi_label") else {"text": text, "label": label}
        elif kind == "regression":
            yield {"text": text, "value": float(len(label))}
        elif kind == "token_classification":
            tokens = text.split()
            yield {"tokens": tokens, "tags": ["B-THING" if token in ("card", "cash") else "O" for token in tokens]}
        elif kind == "embedding":
            yield {"text": text, "positive": f"{label} please {index}"}
        elif kind == "masked_language_model":
            yield {"text": text}
        elif kind == "causal_language_model":
            yield {"prompt": text, "completion": f" {label}"}
        elif kind == "preference":
            yield {"prompt": text, "chosen": f" {label}", "rejected": " none of these"}


BASES = {
    "tests/fixtures/tiny-bert": [
        {"type": "sequence_classification"},
        {"type": "sequence_classification", "multi_label": True},
        {"type": "regression"},
        {"type": "token_classification"},
        {"type": "embedding"},
    ],
    "tests/fixtures/language/bert": [{"type": "masked_language_model"}],
    "tests/fixtures/decoders/qwen3": [{"type": "causal_language_model"}, {"type": "preference"}],
}


class Server:
    """A running build on one base model."""

    def __init__(self, program, model, folder):
        self.log = Path(folder) / "log"
        command = [program, "serve", "--model", str(ROOT / model), "--data-dir", f"{folder}/data", "--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(command, stdout=self.log.open("w"), stderr=subprocess.STDOUT)
        for _ in range(600):
            found = re.search(r"listening.*address=([0-9.:]+)", self.log.read_text())
            if found:
                self.url = f"http://{found.group(1)}"
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        sys.exit(f"{program} did not start:\n{self.log.read_text()}")

    def call(self, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: {error.code} {error.read().decode()}\n{json.dumps(body)[:400]}")

    def version(self, task, method):
        """The version of the adapter that a job makes."""
        body = {
            "name": "compared",
            "task": task,
            "method": method,
            "examples": list(rows(task)),
            "hyperparameters": {"epochs": 2, "batch_size": 8, "seed": 3, "learning_rate": 0.01},
        }
        job = json.loads(self.call("/jobs", body))
        while job["status"] in ("queued", "running"):
            time.sleep(0.05)
            job = json.loads(self.call(f"/jobs/{job['id']}"))
        if job["status"] != "succeeded":
            return f"{job['status']}: {job['error']['code']}"
        return json.loads(self.call(f"/adapters/{job['adapter_id']}"))["version"]

    def stop(self):
        self.process.terminate()
        self.process.wait()


def versions_and_metrics(program):
    versions, metrics = {}, set()
    for model, tasks in BASES.items():
        with tempfile.TemporaryDirectory() as folder:
            server = Server(program, model, folder)
            jobs = [(task, {"type": "lora"}) for task in tasks]
            jobs += [(tasks[0], method) for method in METHODS] if model.endswith("tiny-bert") else []
            for task, method in jobs:
                versions[f"{json.dumps(task)} {json.dumps(method)}"] = server.version(task, method)
            metrics |= set(re.findall(r"^# TYPE (\S+)", server.call("/metrics"), re.M))
            server.stop()
    return versions, metrics


PROSE = {"description", "summary", "title", "example", "examples"}


def shape(node, schemas, seen=()):
    """A document without prose, with references replaced by what they refer to, and with new names for renamed fields."""
    if isinstance(node, dict):
        if "$ref" in node:
            name = node["$ref"].split("/")[-1]
            section = node["$ref"].split("/")[-2]
            return {"recursive": True} if name in seen else shape(schemas[section][name], schemas, (*seen, name))
        fields = RENAMES["fields"]
        plain = {}
        for key, value in node.items():
            if key == "properties":
                plain[key] = {fields.get(name, name): shape(part, schemas, seen) for name, part in value.items()}
            elif key == "required" and isinstance(value, list):
                plain[key] = sorted(fields.get(name, name) for name in value)
            elif key == "discriminator":
                plain[key] = {"propertyName": value["propertyName"], "mapping": sorted(value.get("mapping", {}))}
            elif key not in PROSE:
                plain[key] = shape(value, schemas, seen)
        return plain
    if isinstance(node, list):
        return sorted((shape(part, schemas, seen) for part in node), key=lambda part: json.dumps(part, sort_keys=True))
    return node


def document(program):
    text = subprocess.run([program, "openapi"], check=True, capture_output=True, text=True).stdout
    full = yaml.safe_load(text)
    return shape(full["paths"], full["components"])


def differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys(), key=str):
            if key not in old or key not in new:
                yield f"{path}/{key}: only in the {'old' if key in old else 'new'} build"
            else:
                yield from differences(old[key], new[key], f"{path}/{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (left, right) in enumerate(zip(old, new)):
            yield from differences(left, right, f"{path}/{index}")
    elif old != new:
        yield f"{path}: {json.dumps(old)[:200]} -> {json.dumps(new)[:200]}"


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    old, new = sys.argv[1:]
    in_document = differences(document(old), document(new))
    found = [f"openapi {line}" for line in in_document if not line.startswith(tuple(RENAMES["changed"]))]
    old_versions, old_metrics = versions_and_metrics(old)
    new_versions, new_metrics = versions_and_metrics(new)
    found += [f"version {line}" for line in differences(old_versions, new_versions)]
    renamed = {RENAMES["metrics"].get(name, name) for name in old_metrics}
    found += [f"metric {name}: in one build only" for name in sorted(renamed ^ new_metrics)]
    found += [f"version {name}: {version}" for name, version in new_versions.items() if len(version) < 64]
    for line in found:
        print(line)
    print(f"{len(new_versions)} versions, {len(new_metrics)} metrics: {len(found)} unintended differences")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
