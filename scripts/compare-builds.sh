#!/usr/bin/env bash
# Says whether two builds have the same API, metrics and adapter versions, apart from intended renames:
#
#     scripts/compare-builds.sh OLD_PROGRAM NEW_PROGRAM
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/python-env.sh .venv-compare scripts/compare_builds_requirements.txt)
exec "$python" scripts/compare_builds.py "$@"
