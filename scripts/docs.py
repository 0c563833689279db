"""Runs the shell blocks of Markdown files, one after another. Called by docs.sh with the work folder and the files."""

import os
import re
import subprocess
import sys
from pathlib import Path

FENCE = re.compile(r"^```(?:sh|python)(?: run-by=\"(?P<run_by>[^\"]*)\")?\n(?P<code>.*?)^```$", re.M | re.S)


def main():
    work, *pages = sys.argv[1:]
    address = os.environ["ESPALIER_SERVER"].removeprefix("http://")
    ran = elsewhere = 0
    for page in pages:
        text = Path(page).read_text()
        for block in FENCE.finditer(text):
            line = text[: block.start()].count("\n") + 1
            if block["run_by"]:
                print(f"{page}:{line}: run by {block['run_by']}")
                elsewhere += 1
                continue
            if text[block.start() :].startswith("```python"):
                sys.exit(f"{page}:{line}: a Python block needs run-by")
            code = block["code"].replace("localhost:8080", address)
            result = subprocess.run(["bash", "-euo", "pipefail", "-c", code], cwd=work, capture_output=True, text=True)
            if result.returncode:
                sys.exit(f"{page}:{line}: exit code {result.returncode}\n{code}\n{result.stdout}\n{result.stderr}")
            print(f"{page}:{line}: ok")
            ran += 1
    print(f"{ran} blocks ran, {elsewhere} are run elsewhere")


if __name__ == "__main__":
    main()
