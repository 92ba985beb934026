#!/usr/bin/env bash
# Writes all golden values again, in .venv (see python_checks.sh). An hour or two on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python
out=fixtures/parity
models=$($python -c "import json; print(','.join(json.load(open('$out/parity.json'))['models']))")
trained=$($python -c "import json; print(','.join(k for k, v in json.load(open('$out/parity.json'))['models'].items() if 'train_loss' in v))")
$python tools/parity.py --models "$models" --train-models "$trained" --out "$out/parity"
$python tools/parity.py --strong --models "$models" --size 96 --out "$out/strong"
$python tools/parity.py --strong --variants --out "$out/strong" --merge
$python tools/key_digests.py
$python tools/init_stats.py
$python tools/macs.py
$python tools/predict_fixtures.py
$python tools/preprocess_fixtures.py
$python tools/weights_fixtures.py
$python tools/dataset_fixtures.py
