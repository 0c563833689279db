"""lm-evaluation-harness on a running espalier and on transformers with the same weights: `compare.py SERVER FOLDER`.

FOLDER is the base model as transformers reads it. Prints the metrics of both; fails where a log-likelihood differs by more than
1e-3 per request, or where a metric differs.
"""

import json
import sys
import urllib.request
from pathlib import Path

import lm_eval
from lm_eval.tasks import TaskManager

server, folder = sys.argv[1:]
TASKS = ["banking77_topics", "gsm8k_perplexity"]
TOLERANCE = 1e-3


def evaluate(kind, **arguments):
    tasks = TaskManager(include_path=str(Path(__file__).parent), include_defaults=False)
    return lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=TASKS, task_manager=tasks, batch_size=8, device="cpu", bootstrap_iters=0
    )


def answers(found, task):
    """Log-likelihoods and, where there are choices, whether each is what greedy decoding gives; in the order of the task."""
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [answer for sample in samples for answer in sample["filtered_resps"]]


def compare(one, other):
    """Largest difference of two answers, which are numbers or pairs of a number and a flag."""
    pairs = [(one, other)] if isinstance(one, float) else list(zip(one, other))
    return max(abs(float(here) - float(there)) for here, there in pairs)


with urllib.request.urlopen(f"{server}/v1/models") as answer:
    name = json.load(answer)["data"][0]["id"]
url = f"{server}/v1/completions"
runs = {
    "transformers": evaluate("hf", pretrained=folder, dtype="float32"),
    "espalier": evaluate("local-completions", model=name, base_url=url, tokenizer=folder, tokenizer_backend="huggingface"),
    "espalier, its own tokenizer": evaluate("local-completions", model=name, base_url=url, tokenizer_backend="remote"),
}
expected = runs["transformers"]
for run, found in runs.items():
    print(f"{run}: {json.dumps({task: found['results'][task] for task in TASKS})}")
    for task in TASKS:
        pairs = list(zip(answers(expected, task), answers(found, task), strict=True))
        worst = max(compare(one, other) for one, other in pairs)
        print(f"{run}, {task}: {len(pairs)} log-likelihoods, largest difference {worst:.2e}")
        assert worst <= TOLERANCE, f"{task}: the log-likelihoods of {run} differ by {worst}"
        for metric, value in expected["results"][task].items():
            if isinstance(value, float):
                there = found["results"][task][metric]
                assert abs(value - there) <= TOLERANCE, f"{task}: {metric} of {run} is {there}, not {value}"
