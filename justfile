# What CI runs.
check:
    bash .ci/run

# The README's test command.
test:
    cargo test --release --workspace

# The same with every network, step and size: some ten minutes on 2 cores.
test-full:
    cargo test --release --workspace -- --include-ignored

lint:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# The checks that need Python: weights that Cardinal writes load in timm, predictions agree with timm's.
python-checks:
    bash tools/python_checks.sh

# Exported ONNX files in ONNX Runtime, OpenVINO, tract and rten; '--all' for every network in ONNX Runtime alone.
onnx-check *ARGS:
    cargo build --release
    cargo build --release --manifest-path bench/rust-peers/Cargo.toml
    .venv/bin/python tools/onnx_checks.py target/release/cardinal --rust-peers bench/rust-peers/target/release/rust-peers {{ARGS}}

# Writes docs/parity.md again, from a run of the parity tests.
parity-table:
    CARDINAL_PARITY_TABLE=docs/parity.md cargo test --release -p cardinal-models --test parity

# Golden values of all networks, from timm (an hour or two on 2 cores).
fixtures:
    bash tools/fixtures.sh

# Cardinal beside PyTorch, ONNX Runtime, OpenVINO, tract and rten on this machine, and in training beside PyTorch; installs
# them into bench/.venv.
bench-peers *ARGS: && bench-train
    cargo build --release
    python3 bench/peers.py --install {{ARGS}}

# Training beside PyTorch, eager and compiled: images per second, memory per image, the largest batch under 8 GiB.
bench-train *ARGS:
    cargo build --release
    python3 bench/train_peers.py --install {{ARGS}}

# Every convolution of three networks, kernel by kernel, beside the peak of the processor.
bench-kernels *ARGS:
    cargo run --release -p cardinal-kernels --example conv_bench -- {{ARGS}}

# The gradients of ResNet-50's convolutions and norms, and the packing of its weights; 'weight' has every method beside the other.
bench-grads *ARGS:
    cargo run --release -p cardinal-kernels --example grad_bench -- {{ARGS}}

# A training image's way from JPEG to numbers beside torchvision's, on one core; needs torch and torchvision.
bench-data *ARGS:
    cargo build --release -p cardinal-data --example loader_bench
    python3 bench/data_throughput.py {{ARGS}}

# docs/augmentation.jpg again; needs Pillow.
augmentation-sheet:
    rm -rf target/augmentations
    cargo run --release -p cardinal-data --example augmentations -- assets/chelsea.jpg target/augmentations
    python3 tools/augmentation_sheet.py target/augmentations docs/augmentation.jpg

# An archive to hand out: the program optimised as a whole, completions, manual pages, licences; 'serve' for the server alone.
dist *ARGS:
    bash tools/dist.sh {{ARGS}}

# The server beside 'cardinal bench' at the same batch, and its latency at half load.
bench-serve *ARGS:
    cargo build --release
    python3 bench/serve.py {{ARGS}}

# The server's page in headless Chromium, with docs/serve.png; needs Node and Chromium. CHECKPOINT is one of 'cardinal train'.
page-test CHECKPOINT PICTURE="assets/chelsea.jpg" *ARGS:
    cargo build --release
    npm install --silent --no-save --prefix target/page-test playwright-core@1
    cp tools/page_test.mjs target/page-test/
    node target/page-test/page_test.mjs target/release/cardinal {{CHECKPOINT}} {{PICTURE}} {{ARGS}}
