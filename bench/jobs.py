"""What is measured: the peers with their variants, and the job that one worker process does."""
import argparse
import dataclasses
import pathlib

BENCH = pathlib.Path(__file__).resolve().parent
CACHE = BENCH / ".cache"

DTYPES = ["f32", "bf16"]
# Largest relative L2 error of the logits against PyTorch's f32 with which a peer still runs the right network.
TOLERANCE = {"f32": 1e-3, "bf16": 3e-2}

# Table columns, in this order.
PEERS = {
    "eager": "PyTorch eager",
    "compile": "torch.compile",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tract": "tract",
    "rten": "rten",
}
RUST_PEERS = ["tract", "rten"]
OURS = "cardinal"


def variants(peer: str, dtype: str, batch: int) -> list[str]:
    """The ways to run `peer` that compete; the fastest one is the peer's result. Empty: it has no such dtype.

    OpenVINO, batch > 1: `latency` splits each batch over the cores; `throughput` keeps one whole batch per stream in
    flight; `split` runs the images of one batch as requests of one image, which is what an application with a batch at
    hand can do too.
    """
    if peer in RUST_PEERS:
        return ["default"] if dtype == "f32" else []
    if peer == "openvino":
        return ["latency"] if batch == 1 else ["latency", "throughput", "split"]
    if peer == "onnxruntime":
        return ["default"]
    precision = [""] if dtype == "f32" else ["-autocast", "-convert"]
    modes = ["channels_last"] if peer == "eager" else ["default", "max-autotune"]
    return [mode + how for how in precision for mode in modes]


@dataclasses.dataclass(frozen=True)
class Job:
    """One network at one batch size, input size and precision, on so many threads."""

    model: str
    batch: int
    size: int
    dtype: str
    threads: int

    def arguments(self) -> list[str]:
        """The options that `from_arguments` reads back, for a subprocess."""
        return [item for key, value in dataclasses.asdict(self).items() for item in (f"--{key}", str(value))]

    @classmethod
    def from_arguments(cls, values: argparse.Namespace) -> "Job":
        return cls(**{field.name: getattr(values, field.name) for field in dataclasses.fields(cls)})

    @staticmethod
    def add_arguments(parser: argparse.ArgumentParser) -> None:
        """Declares the options that `arguments` writes."""
        for field in dataclasses.fields(Job):
            parser.add_argument(f"--{field.name}", type=field.type, required=True)

    def folder(self, versions: str) -> pathlib.Path:
        """Where weights, inputs and ONNX files of this network are kept, for each `versions` of what wrote them."""
        return CACHE / f"{self.model}-{self.size}-{versions}"

    def label(self) -> str:
        return f"{self.model} batch {self.batch} {self.dtype}"
