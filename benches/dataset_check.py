"""The check of large files by POST /datasets: processor seconds, memory and size of the report. Prints a table.

    python3 benches/dataset_check.py [--rows N] [--rounds N] [--before PROGRAM]

The files are CSV and JSON lines with 1,000,000 rows by default: clean ones, ones in which each row has a warning (a copy, white space), ones
in which each row has an error (an empty text, an empty label), and one with decimal commas in a column of numbers. With --before, each check alternates with one by
an older program. Memory is the server's peak during the check, less its memory before.
"""

import json
import random
import tempfile
import time
from pathlib import Path

import common
from client import Client, form

WORDS = "when will the new card arrive at my address why is a fee charged for transfer how do I change the code of account".split()
LABELS = ["arrival", "fee", "transfer", "code", "account"]


def clean(chosen, index):
    return f"{' '.join(chosen.choices(WORDS, k=10))} {index}", chosen.choice(LABELS)


def with_warning(chosen, index):
    text, label = clean(chosen, index)
    return ("when will it arrive", "arrival") if index % 2 else (f" {text}  ", label)


def with_error(chosen, index):
    text, label = clean(chosen, index)
    return ("", label) if index % 2 else (text, "")


def with_decimal_comma(chosen, index):
    return clean(chosen, index)[0], f"{index % 90},{index % 7}"


FILES = {
    "clean.csv": clean, "clean.jsonl": clean, "warnings.csv": with_warning, "errors.jsonl": with_error,
    "decimal-comma.csv": with_decimal_comma,
}


def write(path, row, count):
    chosen = random.Random(1)
    with path.open("w", encoding="utf-8") as opened:
        field = "value" if row is with_decimal_comma else "label"
        opened.write(f"text,{field}\n" if path.suffix == ".csv" else "")
        for index in range(count):
            text, label = row(chosen, index)
            line = f'"{text}","{label}"' if path.suffix == ".csv" else json.dumps({"text": text, field: label}, ensure_ascii=False)
            opened.write(f"{line}\n")
    return path


def check(program, path):
    """Processor seconds, seconds, and bytes of memory and of the report."""
    with common.Server(program, "--max-dataset", "1GiB", "--max-rows", "10000000") as server:
        client, content = Client(server.address), path.read_bytes()
        client.predict(["when will it arrive"])
        before, worked, started = server.memory()["VmRSS"], server.processor_seconds(), time.perf_counter()
        report = client.send("/datasets", *form("options", {}, "dataset", path.name, content)).read()
        seconds = time.perf_counter() - started
        return server.processor_seconds() - worked, seconds, server.memory()["VmHWM"] - before, len(report)


def main():
    parser = common.arguments(__doc__, 3, "espalier")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--before", type=Path, help="an older program")
    options = parser.parse_args()
    programs = {"now": common.server_program(options.espalier)}
    if options.before:
        programs["before"] = common.existing(options.before)
    common.header("file", "MiB", "program", "processor seconds", "seconds", "memory, MiB", "report, KiB")
    for name, row in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            path = write(Path(folder) / name, row, options.rows)
            measured = {program: [] for program in programs}
            for _ in range(options.rounds):
                for program, file in programs.items():
                    measured[program].append(check(file, path))
            for program, checks in measured.items():
                worked, seconds, memory, report = (list(values) for values in zip(*checks, strict=True))
                size = f"{path.stat().st_size / 2**20:.0f}"
                common.row(name, size, program, common.spread(worked), common.middle(seconds), common.middle([one / 2**20 for one in memory], 0),
                           common.middle([one / 2**10 for one in report]))


if __name__ == "__main__":
    main()
