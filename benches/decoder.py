"""What the benchmarks of generated text share: the decoder, prompts, adapters, and answers with their times."""

import io
import json
import random
import subprocess
import sys
import threading
import time
import zipfile

import common  # before transformers: it goes on under the Python that has them

from client import Client
from transformers import AutoTokenizer

FILE = common.ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
# The same weights as transformers reads them, in f32.
FOLDER = FILE.with_suffix(".f32")
TASK = {"type": "causal_language_model"}
METHOD = {"type": "lora", "rank": 16, "alpha": 32, "target_modules": "all-linear"}
# Of a job that is there to have an adapter that is not the base: it learns nothing of use.
FEW_STEPS = {"max_steps": 2, "batch_size": 4, "max_length": 64, "learning_rate": 3e-3}
END = -100


def fetch():
    """The GGUF file, and a folder of it for PyTorch."""
    subprocess.run([common.ROOT / "scripts/smollm2.sh"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, common.ROOT / "scripts/hf_folder.py", FILE, FOLDER], check=True)


def arguments(doc, rounds):
    """A parser with what the scripts on generated text take."""
    parser = common.arguments(doc, rounds, "espalier")
    parser.add_argument("--flags", default="", help="more of espalier's flags, in one text")
    return parser


def server(options, *flags):
    return common.Server(common.server_program(options.espalier), *flags, *options.flags.split(), model=FILE)


def pairs(file):
    """Prompts with their completions, of a JSONL with such names or with question and answer, or of a CSV with categories."""
    path = common.existing(common.ROOT / file)
    if path.suffix == ".csv":
        return [{"prompt": row["text"], "completion": f" {row['category']}"} for row in common.rows(file)]
    named = [("prompt", "completion"), ("question", "answer")]
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    asked, answer = next((names for names in named if rows and set(names) <= rows[0].keys()), (None, None))
    if not asked:
        sys.exit(f"error: {path} needs rows with question and answer, or prompt and completion")
    return [{"prompt": row[asked], "completion": row[answer]} for row in rows]


class Prompts:
    """Prompts of an exact number of tokens, each another: what one side read before is of no use to it later."""

    def __init__(self, seed=1):
        self.tokenizer = AutoTokenizer.from_pretrained(FOLDER)
        self.texts, self.random = common.texts(common.TEST), random.Random(seed)
        # No answer may end before its time; what they are instead is chosen from all other tokens.
        self.kept_out = sorted(self.tokenizer.all_special_ids)

    def next(self, length):
        ids = []
        while len(ids) < length:
            ids += self.tokenizer(self.random.choice(self.texts) + "\n", add_special_tokens=False)["input_ids"]
        return ids[:length]


class Answer:
    """A text with the times of its tokens; `began` is when it was asked for."""

    def __init__(self, began, text, times):
        self.began, self.text, self.times = began, text, times

    def wait(self):
        """Seconds until the first token."""
        return self.times[0] - self.began

    def rate(self):
        """Tokens/s after the first."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0])

    def gaps(self):
        return [later - earlier for earlier, later in zip(self.times, self.times[1:])]


def answer(client, model, ids, count, kept_out, **fields):
    """The likeliest next tokens, exactly so many, by OpenAI's call, which both sides know."""
    body = {"model": model, "prompt": ids, "max_tokens": count, "temperature": 0, "stream": True, **fields}
    body |= {"logit_bias": {str(token): END for token in kept_out}, "stream_options": {"include_usage": True}}
    text, times, said, began = "", [], None, time.perf_counter()
    for now, event in client.events("/v1/completions", body):
        said = (event.get("usage") or {}).get("completion_tokens", said)
        # The word that a text is over is no token, and a token may have no text yet.
        if event["choices"] and not event["choices"][0].get("finish_reason"):
            text += event["choices"][0]["text"]
            times.append(now)
    if said != count:
        sys.exit(f"error: {said} tokens came from {client.address}, and not {count}")
    return Answer(began, text, times)


def at_once(address, asked, count, kept_out):
    """Answers to several prompts at the same time: each a model, its prompt, and more fields."""
    found, starting = [None] * len(asked), threading.Barrier(len(asked))

    def ask(place, model, ids, fields):
        client = Client(address)
        client.connection.connect()
        starting.wait()
        found[place] = answer(client, model, ids, count, kept_out, **fields)

    threads = [threading.Thread(target=ask, args=(place, *one), daemon=True) for place, one in enumerate(asked)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Why is told already.
    return found if all(found) else sys.exit("error: not all were answered")


def together(answers):
    """Tokens/s of all, from the first request to the last token."""
    seconds = max(one.times[-1] for one in answers) - min(one.began for one in answers)
    return sum(len(one.times) for one in answers) / seconds


def base_name(client):
    return client.call("/base")["name"]


def train_few(client, names):
    """An adapter of few steps for each name, every one another."""
    rows = pairs(common.SAMPLE)
    jobs = []
    for place, name in enumerate(names):
        body = {"name": name, "task": TASK, "method": METHOD, "validation": {"fraction": 0}}
        body |= {"examples": rows[8 * place : 8 * place + 8], "hyperparameters": {**FEW_STEPS, "seed": place + 1}}
        jobs.append(client.call("/jobs", body)["id"])
    for job in jobs:
        client.await_job(job, lambda view: view["adapter_id"], every=0.5)


def download(client, name, folder):
    """An adapter's folder as PEFT reads it."""
    with zipfile.ZipFile(io.BytesIO(client.read(f"/adapters/{name}/download"))) as archive:
        archive.extractall(folder)
    return next(folder.rglob("adapter_config.json")).parent
