"""What the benchmarks share: their Python, the programs they measure, a server of their own, and tables.

To import this is to go on under the Python of .venv. It and the base model are fetched first where they are missing.
"""

import argparse
import csv
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "models/all-MiniLM-L6-v2"
SAMPLE, TEST = "examples/banking77-sample.csv", "examples/banking77-test.csv"


def enter_environment():
    """Restarts the script under .venv's Python, with the packages of both requirements files."""
    environment, wanted = ROOT / ".venv", ROOT / "benches/requirements.txt"
    python, stamp = environment / "bin/python", environment / "benches.txt"
    subprocess.run([ROOT / "scripts/python-env.sh"], check=True, stdout=subprocess.DEVNULL)
    if not stamp.exists() or stamp.read_bytes() != wanted.read_bytes():
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", wanted]
        subprocess.run(install, check=True)
        shutil.copy(wanted, stamp)
    if Path(sys.prefix) != environment:
        os.execv(python, [str(python), *sys.argv])
    subprocess.run([ROOT / "scripts/model.sh"], check=True, stdout=subprocess.DEVNULL)


enter_environment()
# Servers are stopped by `with`, so an end by SIGTERM has to pass there too.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def arguments(doc, rounds, *programs):
    """A parser with what scripts take; no rounds where there is no number of them. `programs` are those that it measures: espalier, load or training."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"alternating runs; medians count [{rounds}]")
    for program in programs:
        parser.add_argument(f"--{program}", type=Path, help=f"the program {program}; else it is built, for release")
    return parser


def server_program(given):
    if not given:
        built("build", "--release", "--locked")
        given = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/espalier"
    return existing(given)


def bench_program(given, name):
    """The program of a [[bench]] of Cargo.toml."""
    if not given:
        lines = built("bench", "--locked", "--bench", name, "--no-run", "--message-format=json").splitlines()
        messages = [json.loads(line) for line in lines]
        of_bench = [message for message in messages if message.get("target", {}).get("name") == name]
        given = [message["executable"] for message in of_bench if message.get("executable")][-1]
    return existing(given)


def built(*arguments):
    """What cargo prints; its messages are shown as they come."""
    done = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return done.stdout if done.returncode == 0 else sys.exit("error: cargo could not build what is to be measured")


def existing(path):
    path = Path(path).resolve()
    if not path.is_file():
        sys.exit(f"error: there is no {path}")
    return path


class Server:
    """An espalier on a free port, by default in a temporary folder; `with` stops it. `core` is the only processor core that it uses."""

    def __init__(self, program, *flags, folder=None, model=MODEL, core=None):
        self.program, self.flags, self.folder, self.model = program, flags, folder, model
        self.pinned = [] if core is None else ["taskset", "--cpu-list", str(core)]

    def __enter__(self):
        self.temporary = tempfile.TemporaryDirectory(prefix="espalier-bench-")
        self.log = Path(self.temporary.name) / "log"
        folder = self.folder or Path(self.temporary.name) / "data"
        # The settings of whoever calls must not change what is measured.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("ESPALIER_", "DATABASE_URL"))}
        command = [self.program, "serve", "--model", self.model, "--data-dir", folder, "--listen", "127.0.0.1:0"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen([*self.pinned, *command, *self.flags], cwd=ROOT, env=kept, stdout=log, stderr=log)
        try:
            self.address = until(self.find_address, self.process, self.log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def find_address(self):
        found = re.search(r"listening.*address=(\S+)", self.log.read_text())
        return found and found[1]

    def __exit__(self, *_):
        stop(self.process)
        self.temporary.cleanup()

    def memory(self):
        return memory(self.process.pid)

    def processor_seconds(self):
        """Of all its threads, and of the processes it waited for."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def until(ready, process, log, patience=120):
    """Waits for what `ready` returns."""
    end = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < end:
        if found := ready():
            return found
        time.sleep(0.05)
    sys.exit(f"error: the server did not start:\n{log.read_text()[-3000:]}")


def http_status(url):
    """Status of the answer to a GET; None if no server answers."""
    try:
        return urllib.request.urlopen(url).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def stop(process):
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def memory(pid):
    """What /proc says of a process's memory, in bytes by name: VmRSS, VmHWM, RssAnon, …"""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in lines}


def run(*command):
    """The last line of what a program prints, as JSON."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"error: {' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows(file):
    """The rows of a CSV with the columns text and category."""
    path = ROOT / file
    if not path.is_file():
        sys.exit(f"error: there is no {path}")
    with path.open(newline="") as opened:
        found = list(csv.DictReader(opened))
    if not found or not {"text", "category"} <= found[0].keys():
        sys.exit(f"error: {path} needs the columns text and category, and rows")
    return found


def write_rows(path, found):
    with path.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["text", "category"], extrasaction="ignore")
        writer.writeheader()
        writer.writerows(found)
    return path


def texts(file):
    return [row["text"] for row in rows(file)]


def note(text):
    """For who waits; the table alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def row(*cells):
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells):
    row(*cells)
    row(*("---" for _ in cells))


def middle(values, digits=1):
    return f"{statistics.median(values):.{digits}f}"


def spread(values, digits=2):
    """The median with the lowest and the highest."""
    values = list(values)
    return f"{middle(values, digits)} ({min(values):.{digits}f} to {max(values):.{digits}f})"
