"""Writes docs/settings.md from `espalier serve --help`.

    scripts/settings_doc.py PROGRAM > docs/settings.md
"""

import os
import re
import subprocess
import sys

INTRODUCTION = """# Settings

Every setting is a flag of `espalier serve` and an environment variable. A flag wins over its variable. Sizes take a unit (`256MiB`), times too (`30s`).
This page is generated from `espalier serve --help` by `scripts/settings_doc.py`.
"""


def main():
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ESPALIER_", "DATABASE_"))}
    text = subprocess.run([sys.argv[1], "serve", "--help"], capture_output=True, text=True, check=True, env=environment).stdout
    print(INTRODUCTION, end="")
    entry, heading = None, None

    def finish():
        if not entry:
            return
        words = " ".join(entry["words"])
        default = re.search(r"\[default: (.*?)\]", words)
        variable = re.search(r"\[env: ([A-Z0-9_]+)=?[^\]]*\]", words)
        words = re.sub(r"\s*\[(default|env|possible values): .*?\]", "", words).strip()
        words = words.replace("|", "\\|")
        print(f"| `{entry['flag']}` | {f'`{variable[1]}`' if variable else ''} | {f'`{default[1]}`' if default else ''} | {words} |")

    for line in text.splitlines():
        section = re.match(r"^([A-Z][^:]*):$", line)
        flag = re.match(r"^\s+(?:-\w, |    )?(--[\w-]+)(?: <([^>]+)>)?", line)
        if section:
            finish()
            entry = None
            heading = section[1]
            if heading not in ("Usage", "Options"):
                print(f"\n## {heading}\n\n| flag | variable | default | |\n|---|---|---|---|")
        elif flag and heading != "Options":
            finish()
            entry = {"flag": flag[1], "words": [line[flag.end() :].strip()] if line[flag.end() :].strip() else []}
        elif entry is not None and line.strip():
            entry["words"].append(line.strip())
        elif entry is not None and entry["words"] and entry["words"][-1][-1] not in ".:]":
            entry["words"][-1] += "."
    finish()


if __name__ == "__main__":
    main()
