"""Starts serving_peer.py and llama.cpp, and checks that the former and an espalier answer alike."""

import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import common
from client import Client

CHECKED = 50
TOLERANCE = 1e-3


class Peer:
    """So many processes that share a free port, so many threads in each: 2x1. `with` stops them."""

    def __init__(self, shape, folder, adapters, flags):
        self.processes_wanted, self.threads = shape.split("x")
        self.shape, self.folder, self.adapters, self.flags = shape, folder, adapters, flags
        self.processes = []

    def __enter__(self):
        port = "0"
        try:
            for number in range(int(self.processes_wanted)):
                self.address = self.start(self.folder / f"{self.shape}-{number}.log", port)
                port = self.address.split(":")[1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def start(self, log, port):
        command = [sys.executable, "benches/serving_peer.py", common.MODEL, self.adapters]
        command += ["--port", port, "--threads", self.threads, *self.flags]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=common.ROOT, stdout=file, stderr=file)
        self.processes.append(process)

        def address():
            _, said, rest = log.read_text().rpartition("listening address=")
            return said and rest.split("\n")[0]

        return common.until(address, process, log)

    def __exit__(self, *_):
        for process in self.processes:
            common.stop(process)


class Llama:
    """llama.cpp's server on a free port: that of a wheel (llama_peer.py), or a program. `with` stops it.

    So many texts at once, so many tokens each; adapters are GGUF files, and a request names them by their number.
    """

    def __init__(self, model, parallel, context, adapters=(), threads=2, program=None):
        self.model, self.parallel, self.context = str(model), str(parallel), str(parallel * context)
        self.adapters, self.threads, self.program = [str(one) for one in adapters], str(threads), program
        self.name = f"llama.cpp ({program.name if program else 'wheel, AVX2'})"

    def command(self):
        if not self.program:
            numbers = self.threads, self.parallel, self.context
            return [sys.executable, "benches/llama_peer.py", self.model, *numbers, *self.adapters]
        flags = ["--threads", self.threads, "--parallel", self.parallel, "--ctx-size", self.context]
        # The states of texts that are over are not copied away: every prompt is new.
        flags += ["--host", "127.0.0.1", "--port", "0", "--cache-ram", "0", "--lora-init-without-apply"]
        flags += ["--lora", ",".join(self.adapters)] if self.adapters else []
        return [common.existing(self.program), "--model", self.model, *flags]

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="espalier-bench-")
        log = Path(self.folder.name) / "llama.log"
        with log.open("w") as file:
            self.process = subprocess.Popen(self.command(), cwd=common.ROOT, stdout=file, stderr=file)

        def address():
            found = re.search(r"listening on http://([\d.]+:\d+)", log.read_text())
            return found and found[1]

        try:
            self.address = common.until(address, self.process, log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def memory(self):
        return common.memory(self.process.pid)

    def __exit__(self, *_):
        common.stop(self.process)
        self.folder.cleanup()


def ask_at_once(address, asked, extra=""):
    """The predictions for one text each, all asked at the same time, so that they share batches."""

    def ask(one):
        text, adapter = one
        return Client(address).predict([text], adapter + extra)[0]

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(ask, asked))


def check_alike(address, peers, texts, names, mode):
    """Random adapters with random heads give the same labels only where both sides do the same work."""
    asked = [(texts[number % len(texts)], names[number % len(names)]) for number in range(CHECKED)]
    ours = ask_at_once(address, asked)
    for peer in peers:
        theirs = ask_at_once(peer.address, asked, f"&mode={mode}")
        for (text, name), one, other in zip(asked, ours, theirs, strict=True):
            if one["label"] != other["label"] or abs(one["score"] - other["score"]) > TOLERANCE:
                said = f"espalier {one['label']} ({one['score']:.4f}), the peer {other['label']} ({other['score']:.4f})"
                sys.exit(f"error: to {text!r} for {name}, {mode}, the answers differ: {said}")
    common.note(f"{mode}: {CHECKED} answers are alike")
