"""transformers + PEFT behind FastAPI and uvicorn: the other side of serving.py, tuned as well as we could.

    serving_peer.py MODEL ADAPTERS [--port 0] [--threads 2] [--merge NAME]

ADAPTERS is a folder of PEFT folders (adapters.py); all of them are loaded. One thread computes: it takes whatever
waits, up to --most inputs, and waits no longer than --wait for company, and only where the batch before had any. A
batch is sorted by length, and cut into several forwards where another one costs less than the padding. How several
adapters are computed is said by a request's `mode`:

mode=mixed    rows of all adapters in one forward, by PEFT's `adapter_names`; the heads are picked per row
mode=grouped  one adapter after the other
mode=merged   by the one adapter that --merge has added to the weights: as fast as no adapter, and for no other one
"""

import argparse
import asyncio
import json
import queue
import socket
import threading
import time
from pathlib import Path

import numpy
import torch
import uvicorn
from fastapi import FastAPI, Response
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from pydantic import BaseModel
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

HEAD = "base_model.model.classifier."
MAX_LENGTH = 128
LABELS = [f"LABEL_{number}" for number in range(1000)]


class Engine:
    """The base with all adapters, and their heads in one tensor."""

    def __init__(self, options):
        folders = sorted(path for path in options.adapters.iterdir())
        self.names = [folder.name for folder in folders]
        self.overhead = options.overhead
        self.tokenizer = AutoTokenizer.from_pretrained(options.model).backend_tokenizer
        self.tokenizer.enable_truncation(MAX_LENGTH)
        self.tokenizer.no_padding()
        self.model = PeftModel.from_pretrained(self.base(options), folders[0], adapter_name=self.names[0])
        for folder in folders[1:]:
            self.model.load_adapter(folder, adapter_name=folder.name)
        self.model.eval()
        self.layers = [module for module in self.model.modules() if isinstance(module, BaseTunerLayer)]
        heads = [load_file(folder / "adapter_model.safetensors") for folder in folders]
        self.weights = torch.stack([head[HEAD + "weight"].T for head in heads]).contiguous()
        self.biases = torch.stack([head[HEAD + "bias"] for head in heads])
        self.merged = None
        if options.merge:
            adapted = PeftModel.from_pretrained(self.base(options), options.adapters / options.merge)
            self.merged = adapted.merge_and_unload().eval()

    def base(self, options):
        return AutoModel.from_pretrained(options.model, add_pooling_layer=False, attn_implementation="sdpa")

    @torch.inference_mode()
    def compute(self, requests, mode):
        """A list of (label, score) per request."""
        encoded = self.tokenizer.encode_batch_fast([text for request in requests for text in request.texts])
        places = [(place, index) for place, request in enumerate(requests) for index in range(len(request.texts))]
        rows = [(part.ids, requests[place].adapter, place, index) for part, (place, index) in zip(encoded, places)]
        rows.sort(key=lambda row: len(row[0]))
        answers = [[None] * len(request.texts) for request in requests]
        for group in self.groups(rows, mode):
            for start, end in cut([len(row[0]) for row in group], self.overhead):
                part = group[start:end]
                for (_, _, place, index), answer in zip(part, self.forward(part, mode)):
                    answers[place][index] = answer
        return answers

    def groups(self, rows, mode):
        if mode != "grouped":
            return [rows]
        groups = {}
        for row in rows:
            groups.setdefault(row[1], []).append(row)
        return groups.values()

    def forward(self, rows, mode):
        lengths = [len(row[0]) for row in rows]
        ids = numpy.zeros((len(rows), max(lengths)), numpy.int64)
        for place, row in enumerate(rows):
            ids[place, : lengths[place]] = row[0]
        mask = None
        if min(lengths) < max(lengths):
            mask = torch.from_numpy(numpy.arange(max(lengths)) < numpy.array(lengths)[:, None])
        adapters = [row[1] for row in rows]
        options = {} if mask is None else {"attention_mask": mask.long()}
        if mode == "merged":
            model = self.merged
        else:
            model = self.model
            if len(set(adapters)) > 1:
                options["adapter_names"] = [self.names[adapter] for adapter in adapters]
            else:
                self.activate(self.names[adapters[0]])
        hidden = model(input_ids=torch.from_numpy(ids), **options).last_hidden_state
        if mask is None:
            pooled = hidden.mean(1)
        else:
            mask = mask.unsqueeze(-1).to(hidden.dtype)
            pooled = (hidden * mask).sum(1) / mask.sum(1)
        scores, labels = self.logits(pooled, adapters).softmax(-1).max(-1)
        return [(LABELS[label], score) for label, score in zip(labels.tolist(), scores.tolist())]

    def logits(self, pooled, adapters):
        if len(set(adapters)) == 1:
            return torch.addmm(self.biases[adapters[0]], pooled, self.weights[adapters[0]])
        chosen = torch.tensor(adapters)
        return torch.baddbmm(self.biases[chosen].unsqueeze(1), pooled.unsqueeze(1), self.weights[chosen]).squeeze(1)

    def activate(self, name):
        """As set_adapter, which visits every tensor of every adapter to say whether it is trained."""
        for layer in self.layers:
            layer._active_adapter = [name]


def cut(lengths, overhead):
    """The cheapest way to cut sorted lengths: a forward costs its padded tokens, and `overhead` more of them."""
    costs, starts = [0], [0]
    for end, longest in enumerate(lengths, 1):
        cost, start = min((costs[start] + overhead + (end - start) * longest, start) for start in range(end))
        costs.append(cost)
        starts.append(start)
    cuts, end = [], len(lengths)
    while end:
        cuts.append((starts[end], end))
        end = starts[end]
    return cuts


class Request:
    def __init__(self, texts, adapter, mode):
        self.texts, self.adapter, self.mode = texts, adapter, mode
        self.loop = asyncio.get_running_loop()
        self.answer = self.loop.create_future()


class Batcher(threading.Thread):
    def __init__(self, engine, options):
        super().__init__(daemon=True)
        self.engine, self.most, self.wait = engine, options.most, options.wait / 1000
        self.waiting = queue.SimpleQueue()

    def run(self):
        company = False
        while True:
            requests = self.take(self.wait if company else 0)
            company = len(requests) > 1
            try:
                answers = self.engine.compute(requests, requests[0].mode)
            except Exception as error:
                answers = [error] * len(requests)
            requests[0].loop.call_soon_threadsafe(settle, requests, answers)

    def take(self, wait):
        requests = [self.waiting.get()]
        inputs, end = len(requests[0].texts), time.perf_counter() + wait
        while inputs < self.most:
            try:
                requests.append(self.waiting.get(timeout=max(0, end - time.perf_counter())))
            except queue.Empty:
                break
            inputs += len(requests[-1].texts)
        return requests


def settle(requests, answers):
    for request, answer in zip(requests, answers):
        if request.answer.cancelled():
            continue
        if isinstance(answer, Exception):
            request.answer.set_exception(answer)
        else:
            request.answer.set_result(answer)


class Ask(BaseModel):
    inputs: list[str]


def application(engine, batcher):
    app = FastAPI()
    numbers = {name: number for number, name in enumerate(engine.names)}

    @app.post("/predict")
    async def predict(ask: Ask, adapter: str, mode: str = "mixed"):
        request = Request(ask.inputs, numbers[adapter], mode)
        batcher.waiting.put(request)
        answers = await request.answer
        predictions = [
            {"label": label, "score": score, "top": [{"label": label, "score": score}]} for label, score in answers
        ]
        body = json.dumps({"adapter": {"name": adapter}, "predictions": predictions})
        return Response(body, media_type="application/json")

    return app


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("adapters", type=Path)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--most", type=int, default=64, help="inputs in a batch")
    parser.add_argument("--overhead", type=int, default=64, help="what a forward costs besides its tokens, in tokens")
    parser.add_argument("--wait", type=float, default=2, help="milliseconds that a batch waits for company")
    parser.add_argument("--merge", help="an adapter to merge into a second copy of the base")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = Engine(options)
    batcher = Batcher(engine, options)
    batcher.start()
    # Several processes may share a port.
    listener = socket.create_server(("127.0.0.1", options.port), backlog=1024, reuse_port=True)
    config = uvicorn.Config(
        application(engine, batcher),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_keep_alive=600,
    )
    print(f"listening address=127.0.0.1:{listener.getsockname()[1]}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


main()
