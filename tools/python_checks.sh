#!/usr/bin/env bash
# The checks that need Python: timm loads what Cardinal writes, and computes what Cardinal computes; runtimes of ONNX do
# too. Installs timm, PyTorch and the runtimes into .venv (2 to 6 GB) the first time.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ ! -x .venv/bin/python ] && ! python3 -m venv .venv; then
    apt-get update && apt-get install -y python3-venv
    python3 -m venv --clear .venv
fi
.venv/bin/python -m pip install --quiet -r tools/requirements.txt
cargo build --release
.venv/bin/python tools/python_checks.py target/release/cardinal
.venv/bin/python tools/onnx_checks.py target/release/cardinal
