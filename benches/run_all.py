"""Runs the benchmarks one after another and writes their tables as JSON and Markdown.

    python3 benches/run_all.py [--only NAME,…] [--rounds 3] [--record] [--banking77 FOLDER]

The programs are built once. `target/bench/results.json` has for each benchmark its command, date, commit, machine, seconds, exit status and tables;
`results.md` beside it has the same tables. With --record the results of the benchmarks that ran replace their earlier ones in
`benches/results.json`, and the last section of `benches/README.md` is written from that file; with --only "" nothing is run and only that section
is written. A benchmark that fails is reported, the others run, and the exit status is 1.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

import common

# Functions that return the path of a program, and build it if none is given.
PROGRAMS = {
    "espalier": common.server_program,
    "load": lambda given: common.bench_program(given, "load"),
    "training": lambda given: common.bench_program(given, "training"),
}

# Name, script with its arguments, programs that it takes.
BENCHES = [
    ("training", ["benches/training.py"], ["training"]),
    ("precision", ["benches/precision.py"], ["training"]),
    ("embeddings", ["benches/embeddings.py"], ["espalier", "load"]),
    ("serving", ["benches/serving.py"], ["espalier", "load"]),
    ("sharing", ["benches/sharing.py"], ["espalier", "load"]),
    ("sharing-int8", ["benches/sharing.py", "--int8"], ["espalier", "load"]),
    ("prefill", ["benches/prefill.py"], ["espalier"]),
    ("decode", ["benches/decode.py"], ["espalier"]),
    ("streams", ["benches/streams.py"], ["espalier"]),
    ("prompt-lookup", ["benches/prompt_lookup.py"], ["espalier"]),
    ("large-base", ["benches/large_base.py", "--parts", "load,decode"], ["espalier"]),
    ("large-base-training", ["benches/large_base.py", "--parts", "train", "--jobs", "bf16, int8;bf16, int8, --activation-memory 384MiB;Q4_0, int8"], ["espalier"]),
    ("large-base-memory", ["benches/large_base.py", "--parts", "long", "--jobs", "bf16"], ["espalier"]),
]

# Benchmarks that take the whole of banking77 if it is there; else the sample of examples/.
BANKING77 = ["embeddings"]

RECORDED, README = common.ROOT / "benches/results.json", common.ROOT / "benches/README.md"
SECTION = "## Recorded results"


def machine():
    cpu = next((line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), platform.machine())
    flags = Path("/proc/cpuinfo").read_text().split()
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "instructions": [name for name in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8") if name in flags],
    }


def tables(text):
    """The Markdown tables of an output: columns, and rows of cells."""
    found, lines = [], [line.strip() for line in text.splitlines()]
    for line, after in zip(lines, [*lines[1:], ""]):
        if not line.startswith("|") or is_delimiter(line):
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if is_delimiter(after):
            found.append({"columns": cells, "rows": []})
        elif found:
            found[-1]["rows"].append(cells)
    return found


def is_delimiter(line):
    """Whether it is the second line of a table."""
    return line.startswith("|") and set(line) <= set("|-: ")


def measure(name, command, source):
    common.note(f"{name}: {' '.join(map(str, command))}")
    start = time.monotonic()
    done = subprocess.run([sys.executable, *map(str, command)], cwd=common.ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, flush=True)
    return {
        **source,
        "seconds": round(time.monotonic() - start, 1),
        "exit_status": done.returncode,
        "tables": tables(done.stdout),
    }


def markdown(results, level):
    """Sections of all results."""
    lines = []
    for name, result in results.items():
        machine = f"{result['machine']['cores']} cores of {result['machine']['cpu']}, {', '.join(result['machine']['instructions'])}"
        lines += [f"{level} {name}", "", f"`{result['command']}`: {result['date']}, commit {result['commit']}, {machine}; {result['seconds']:.0f} s", ""]
        for table in result["tables"]:
            rows = [table["columns"], ["---"] * len(table["columns"]), *table["rows"]]
            lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return "\n".join(lines)


def write(results, json_path):
    json_path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")


def record(results):
    """Adds results to those that are kept, and writes the section of the README."""
    kept = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    known = [name for name, *_ in BENCHES]
    kept = {name: result for name, result in sorted((kept | results).items(), key=lambda item: known.index(item[0])) if not result["exit_status"]}
    write(kept, RECORDED)
    before, _, _ = README.read_text().partition(SECTION)
    README.write_text(f"{before.rstrip()}\n\n{SECTION}\n\nWritten by `run_all.py --record` from `results.json`.\n\n{markdown(kept, '###')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"names, separated by commas: {', '.join(name for name, *_ in BENCHES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--record", action="store_true", help="keep the results in benches/results.json and benches/README.md")
    parser.add_argument("--banking77", type=Path, help=f"the folder with the whole dataset in train.csv and test.csv, for: {', '.join(BANKING77)}")
    for program in PROGRAMS:
        parser.add_argument(f"--{program}", type=Path, help=f"the program {program}; else it is built, for release")
    options = parser.parse_args()
    names = [name for name, *_ in BENCHES] if options.only is None else [name for name in options.only.split(",") if name]
    if unknown := set(names) - {name for name, *_ in BENCHES}:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    chosen = [bench for bench in BENCHES if bench[0] in names]
    needed = {program for *_, programs in chosen for program in programs}
    built = {program: PROGRAMS[program](getattr(options, program)) for program in PROGRAMS if program in needed}
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=common.ROOT, stdout=subprocess.PIPE, text=True).stdout.strip()
    out, results = common.ROOT / "target/bench", {}
    out.mkdir(parents=True, exist_ok=True)
    for name, command, programs in chosen:
        command = [*command, "--rounds", options.rounds]
        files = {f"--{part}": f"{part}.csv" for part in ("train", "test") if options.banking77 and name in BANKING77}
        named = [*command, *(part for pair in files.items() for part in pair)]
        command += [part for flag, file in files.items() for part in (flag, options.banking77 / file)]
        source = {"command": f"python3 {shlex.join(map(str, named))}", "date": time.strftime("%Y-%m-%d"), "commit": commit, "machine": machine()}
        flags = [part for program in programs for part in (f"--{program}", built[program])]
        results[name] = measure(name, [*command, *flags], source)
        write(results, out / "results.json")
        (out / "results.md").write_text(markdown(results, "##"))
    common.note(f"results in {out}")
    if options.record:
        record(results)
    failed = [name for name, result in results.items() if result["exit_status"]]
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
