#!/usr/bin/env bash
# lm-evaluation-harness, as it is published, scores small tasks through /v1/completions, and on transformers with the same weights (f32).
# Prints the metrics of both; fails where a log-likelihood differs by more than 1e-3.
#
# Needs Python with the packages of tests/openai/lm_eval/requirements.txt: LM_EVAL_PYTHON names one that has them; without it, they are
# installed into .venv-lm-eval/ (6 GB, most of it PyTorch).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${LM_EVAL_PYTHON:-$(scripts/python-env.sh .venv-lm-eval tests/openai/lm_eval/requirements.txt)}
scripts/smollm2.sh
gguf=models/SmolLM2-135M-Instruct.Q4_1.gguf
folder=models/SmolLM2-135M-Instruct.Q4_1.f32
"$python" scripts/hf_folder.py "$gguf" "$folder"
cargo build --locked --quiet

. scripts/server.sh
start_server "${CARGO_TARGET_DIR:-target}/debug/espalier" "$folder"
# Nothing is fetched but from this server.
HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$server_folder/datasets" TOKENIZERS_PARALLELISM=false \
  "$python" tests/openai/lm_eval/compare.py "$ESPALIER_SERVER" "$folder"
stop_server
