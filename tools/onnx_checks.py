#!/usr/bin/env python3
"""Checks ONNX files that `cardinal export` writes, with ONNX's own checker and with the runtimes that people use.

    python tools/onnx_checks.py target/release/cardinal                 # one network of each kind, small images
    python tools/onnx_checks.py target/release/cardinal --all           # all of them, at their own size
    python tools/onnx_checks.py target/release/cardinal --rust-peers bench/rust-peers/target/release/rust-peers

Weights are those of tools/parity.py's rule, by name, so that every branch counts; images are uniform noise. For each file:
- onnx.checker with full_check, which infers shapes strictly; every parameter is there under timm's name;
- ONNX Runtime gives the logits of `cardinal predict` for a batch of 1 and of 3, within a relative L2 error of 1e-4;
- the quick set also in OpenVINO and, with --rust-peers, in tract and rten; and its variants: free size, fixed batch,
  external data, the optimized graph, every opset, `--check`.
A mirrored image must move the logits by more than twenty times the error, or the comparison would show nothing.

Prints one line for each network, and at the end the worst error of each family as a table for docs/onnx.md.
"""
import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

import numpy as np
import onnx
import onnxruntime
from safetensors.numpy import load_file, save_file

import parity

TOLERANCE = 1e-4
# One of each kind: radix and cardinality, poolings, gates, activations, paddings.
QUICK = [
    "resnest14d", "resnest50d_4s2x40d", "resnest50d_1s4x24d", "tresnet_m", "tresnet_l", "resnet18", "resnet50d",
    "resnext50_32x4d", "seresnet50", "skresnet18", "regnety_040", "efficientnet_b0", "tf_efficientnet_b0", "mixnet_s",
    "tf_mixnet_s", "fbnetv2_f1", "sa_fbnetv2_f1",
]
# Of these, all variants of the file are checked.
VARIANTS = ["resnest14d", "tresnet_m", "tf_efficientnet_b0"]


def run(cardinal: str, *arguments: object) -> str:
    result = subprocess.run([cardinal, "-q", *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, f"{' '.join(map(str, arguments))}: {result.stderr.strip()}"
    return result.stdout


def rule_weights(cardinal: str, model: str, folder: pathlib.Path) -> pathlib.Path:
    """A checkpoint of the network with the rule's values."""
    path = folder / "weights.safetensors"
    run(cardinal, "export", "--model", model, "--untrained", "--output", path)
    # Where the signal dies out, or a very deep network magnifies every rounding, all matrices are scaled.
    gains = {**parity.GAINS, "resnest269e": 0.9}
    gain = np.float32(gains.get(model.removeprefix("tf_"), 1.25 if "fbnet" in model else 1.0))
    tensors = {}
    for name, tensor in load_file(path).items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = np.zeros_like(tensor)
        else:
            tensors[name] = parity.value(name, tensor.shape, "").numpy() * (gain if tensor.ndim > 1 else 1)
    save_file(tensors, path)
    return path


def image(count: int, height: int, width: int) -> np.ndarray:
    return parity.signal("input", (count, 3, height, width), "").numpy()


def error(ours: np.ndarray, theirs: np.ndarray) -> float:
    assert ours.shape == theirs.shape, f"{ours.shape} and {theirs.shape}"
    difference = ours.astype(np.float64) - theirs
    return float(np.linalg.norm(difference) / np.linalg.norm(ours.astype(np.float64)))


def session(path: pathlib.Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class Check:
    """One network with its weights."""

    def __init__(self, cardinal: str, model: str, size: int, folder: pathlib.Path) -> None:
        self.cardinal, self.model, self.size, self.folder = cardinal, model, size, folder
        self.weights = rule_weights(cardinal, model, folder)

    def logits(self, x: np.ndarray) -> np.ndarray:
        np.save(self.folder / "in.npy", x)
        tensor = ["--tensor", self.folder / "in.npy", "--output", self.folder / "out.npy"]
        run(self.cardinal, "predict", "--model", self.model, "--checkpoint", self.weights, *tensor)
        return np.load(self.folder / "out.npy")

    def export(self, *flags: object, name: str = "net.onnx") -> pathlib.Path:
        path = self.folder / name
        arguments = ["--model", self.model, "--checkpoint", self.weights, "--output", path, "--img-size", self.size]
        run(self.cardinal, "export", *arguments, *flags)
        # The full check infers all shapes, strictly.
        onnx.checker.check_model(path, full_check=True)
        return path

    def close(self, what: str, ours: np.ndarray, theirs: np.ndarray) -> float:
        found = error(ours, theirs)
        assert found <= TOLERANCE, f"{self.model}, {what}: relative L2 error {found:.1e}"
        return found

    def plain(self) -> float:
        """The file as it comes by default. Returns ONNX Runtime's error."""
        path = self.export()
        names = {tensor.name for tensor in onnx.load(path).graph.initializer}
        parameters = {name for name in load_file(self.weights) if not name.endswith("num_batches_tracked")}
        assert parameters <= names, f"{self.model}: {sorted(parameters - names)[:5]} are not in the file"
        x = image(3, self.size, self.size)
        ours = self.logits(x)
        runtime = session(path)
        worst = 0.0
        for count in (1, 3):
            (theirs,) = runtime.run(["logits"], {"input": x[:count]})
            worst = max(worst, self.close(f"ONNX Runtime, batch {count}", ours[:count], theirs))
        (mirrored,) = runtime.run(["logits"], {"input": np.ascontiguousarray(x[:, :, :, ::-1])})
        moved = error(ours, mirrored)
        assert moved > 20 * worst, f"{self.model}: a mirrored image moves the logits by {moved:.1e}, the error is {worst:.1e}"
        return worst

    def openvino(self) -> float:
        import openvino

        x = image(3, self.size, self.size)
        compiled = openvino.Core().compile_model(self.folder / "net.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return self.close("OpenVINO", self.logits(x), compiled(x)[0])

    def rust(self, peers: str, peer: str, name: str = "net.onnx") -> float:
        x = image(1, self.size, self.size)
        given, got = self.folder / "in.raw", self.folder / "out.raw"
        x.tofile(given)
        shape = ",".join(map(str, x.shape))
        files = ["--onnx", self.folder / name, "--input", given, "--output", got]
        command = [peers, "--peer", peer, "--shape", shape, "--threads", "1", *map(str, files)]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert result.returncode == 0, f"{self.model}, {peer}: {result.stdout} {result.stderr[-300:]}"
        ours = self.logits(x)
        return self.close(peer, ours, np.fromfile(got, np.float32).reshape(ours.shape))

    def variants(self, peers: str | None) -> None:
        x = image(2, self.size, self.size)
        ours = self.logits(x)
        for opset in range(17, 22):
            path = self.export("--opset", opset)
            assert onnx.load(path).opset_import[0].version == opset
            self.close(f"opset {opset}", ours, session(path).run(None, {"input": x})[0])
        report = json.loads(run(self.cardinal, "export", "--checkpoint", self.weights, "--model", self.model, "--output",
                                self.folder / "net.onnx", "--img-size", self.size, "--check", "--json"))
        assert report["check"]["relative_error"] <= TOLERANCE, report
        for flags in (["--batch", 2], ["--external-data"], ["--optimize"], ["--batch", 2, "--optimize", "--external-data"]):
            path = self.export(*flags, name="variant.onnx")
            assert not ("--external-data" in flags and path.stat().st_size > 1 << 20), "the weights are in the file"
            self.close(" ".join(map(str, flags)), ours, session(path).run(None, {"input": x})[0])
        path = self.export("--dynamic-size", name="free.onnx")
        runtime = session(path)
        sides = [(64, 96), (100, 92)] if self.model.startswith("tresnet") else [(65, 96), (98, 91)]
        for height, width in [(self.size, self.size), *sides]:
            x = image(2, height, width)
            self.close(f"{height}x{width}", self.logits(x), runtime.run(None, {"input": x})[0])
        # rten 0.27 has no SpaceToDepth.
        for peer in ("tract",) if self.model.startswith("tresnet") else ("tract", "rten"):
            if peers:
                self.rust(peers, peer, "free.onnx")


# The first that a name contains.
FAMILIES = {
    "sa_fbnet": "SA-FBNetV2", "fbnet": "FBNetV2", "resnest": "ResNeSt", "tresnet": "TResNet", "skresne": "SKNet",
    "senet154": "SENet", "seresne": "SENet", "resnext": "ResNeXt", "regnet_sa": "RegNet-SA", "regnet": "RegNetY",
    "efficientnet": "EfficientNet", "mixnet": "MixNet", "resnet": "ResNet, ResNet-D",
}


def family(model: str) -> str:
    return next((name for key, name in FAMILIES.items() if key in model), model)


def example(cardinal: str) -> None:
    """The program of docs/onnx.md classifies a photograph as `cardinal predict` does."""
    root = pathlib.Path(__file__).resolve().parent.parent
    (program,) = re.findall(r"```python\n(.*?)```", (root / "docs" / "onnx.md").read_text(), re.DOTALL)
    photo = root / "assets" / "coffee.jpg"
    with tempfile.TemporaryDirectory() as folder:
        check = Check(cardinal, "resnest14d", 224, pathlib.Path(folder))
        command = [sys.executable, "-c", program, check.export(), photo]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
        network = ["--model", check.model, "--checkpoint", check.weights]
        ours = json.loads(run(cardinal, "predict", *network, "--json", photo))[0]["predictions"]
    for line, prediction in zip(printed, ours, strict=True):
        probability, name = line.split(" ", 1)
        assert abs(float(probability) - prediction["probability"]) <= 0.03 * prediction["probability"] + 1e-4, printed
        assert name == prediction["name"], f"{name}, and predict says {prediction['name']}"
    print("the program of docs/onnx.md agrees with predict", flush=True)


def check_model(args: argparse.Namespace, model: str, size: int) -> dict[str, float]:
    """The errors of one network, by runtime."""
    with tempfile.TemporaryDirectory() as folder:
        check = Check(args.cardinal, model, size, pathlib.Path(folder))
        errors = {"ONNX Runtime": check.plain()}
        if not args.all:
            errors["OpenVINO"] = check.openvino()
        for peer in ("tract", "rten") if args.rust_peers else ():
            errors[peer] = check.rust(args.rust_peers, peer)
        if not args.all and model in VARIANTS:
            check.variants(args.rust_peers)
    return errors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cardinal", help="the built binary")
    parser.add_argument("--all", action="store_true", help="all networks, at their own size")
    parser.add_argument("--size", type=int, help="side of the images, instead of each network's own")
    parser.add_argument("--models", help="these instead, comma-separated")
    parser.add_argument("--rust-peers", help="the binary of bench/rust-peers: tract and rten too")
    args = parser.parse_args()
    listed = {row["model"]: row["img_size"] for row in json.loads(run(args.cardinal, "models", "--json"))}
    models = args.models.split(",") if args.models else list(listed) if args.all else QUICK
    if not args.models:
        example(args.cardinal)
    families: dict[str, list[float]] = {}
    failed = []
    for model in models:
        small = 96 if model.startswith("tresnet") else 97
        size = args.size or (listed[model] if args.all else small)
        try:
            errors = check_model(args, model, size)
        except AssertionError as reason:
            failed.append(model)
            print(f"FAILED {reason}", flush=True)
            continue
        families.setdefault(family(model), []).append(errors["ONNX Runtime"])
        text = ", ".join(f"{name} {value:.1e}" for name, value in errors.items())
        print(f"{model} at {size}: {text}", flush=True)
    print("\n| family | networks | worst relative L2 error |\n|---|---|---|")
    for name, errors in families.items():
        print(f"| {name} | {len(errors)} | {max(errors):.1e} |")
    print(f"\nonnx checks: {len(models) - len(failed)} passed, {len(failed)} failed {' '.join(failed)}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
