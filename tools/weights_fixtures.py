"""Writes fixtures/weights: tiny checkpoints in every form that crates/weights reads.

    python tools/weights_fixtures.py          # needs torch and safetensors

Each `<case>.pth` has the tensors of `expected.safetensors` in one container, wrapper, prefix, element type
or memory layout; `names_*.safetensors` hold tiny networks of other code bases with timm's conversion.
"""

import argparse
import collections
import re
from pathlib import Path

import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "fixtures" / "weights"


def state_dict():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        collections.OrderedDict(conv=torch.nn.Conv2d(3, 4, 3, bias=False), bn=torch.nn.BatchNorm2d(4))
    )
    with torch.no_grad():
        model.bn.running_mean.uniform_(-1, 1)
        model.bn.num_batches_tracked.fill_(7)
    return model, model.state_dict()


def strided(sd):
    """The same values through views: transposed, offset, with holes, expanded, and in one storage."""
    out = collections.OrderedDict()
    w = sd["conv.weight"]
    out["conv.weight"] = w.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    pool = torch.cat([sd["bn.weight"], sd["bn.bias"], sd["bn.running_mean"], sd["bn.running_var"]])
    out["bn.weight"] = torch.ones(1).expand(4)
    out["bn.bias"] = pool[4:8]
    holes = torch.full((8,), 9.0)
    holes[::2] = sd["bn.running_mean"]
    out["bn.running_mean"] = holes[::2]
    out["bn.running_var"] = pool[12:16]
    out["bn.num_batches_tracked"] = sd["bn.num_batches_tracked"]
    return out


def cast(sd, dtype):
    return {k: v.to(dtype) if v.is_floating_point() else v for k, v in sd.items()}


def prefixed(sd, prefix):
    return collections.OrderedDict((prefix + k, v) for k, v in sd.items())


def other(sd):
    return {k: v + 1 for k, v in sd.items()}


def training(sd):
    """What timm's CheckpointSaver writes, with an optimizer, and objects that a reader must skip."""
    p = torch.nn.Parameter(sd["conv.weight"].clone())
    opt = torch.optim.SGD([p], lr=0.1, momentum=0.9)
    p.sum().backward()
    opt.step()
    args = argparse.Namespace(model="resnest14d", lr=0.1, device=torch.device("cpu"))
    return dict(epoch=12, arch="resnest14d", state_dict=sd, state_dict_ema=other(sd), optimizer=opt.state_dict(),
                version=2, args=args, metric=81.5, best=torch.tensor(81.5), seed=2**70)


def checkpoints(model, sd):
    yield "zip", sd, {}
    yield "legacy", sd, dict(_use_new_zipfile_serialization=False)
    yield "protocol4", sd, dict(pickle_protocol=4)
    yield "legacy_protocol4", sd, dict(pickle_protocol=4, _use_new_zipfile_serialization=False)
    for key in ["state_dict", "model", "net", "ema", "state_dict_ema", "model_ema"]:
        yield f"wrapped_{key}", {key: sd, "epoch": 3}, {}
    yield "wrapped_unknown", {"generator": sd, "steps": 5}, {}
    yield "wrapped_twice", {"ema": {"module": sd, "decay": 0.99}}, {}
    yield "training", training(sd), {}
    yield "training_legacy", training(sd), dict(_use_new_zipfile_serialization=False)
    yield "asl", {"model": sd, "num_classes": 3, "idx_to_class": {0: "cat", 1: "dog", 2: "owl"}}, {}
    yield "prefix_module", prefixed(sd, "module."), {}
    yield "prefix_compiled", prefixed(sd, "module._orig_mod."), {}
    yield "prefix_averaged", {"model_ema": {**prefixed(sd, "module."), "n_averaged": torch.tensor(5)}}, {}
    yield "parameters", {k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in sd.items()}, {}
    yield "strided", strided(sd), {}
    yield "strided_legacy", strided(sd), dict(_use_new_zipfile_serialization=False)
    yield "whole_model", model, {}
    yield "half", cast(sd, torch.float16), {}
    yield "bfloat16", cast(sd, torch.bfloat16), {}
    yield "double", cast(sd, torch.float64), {}
    yield "double_legacy", cast(sd, torch.float64), dict(_use_new_zipfile_serialization=False)
    yield "integers", integers(), {}
    yield "odd", {**sd, "note": "text", "none": None, "shape": (1, 2), "complex": torch.ones(2, dtype=torch.complex64),
                  "empty": torch.zeros(0, 3), "scalar": torch.tensor(1.5)}, {}


def integers():
    types = [torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.uint16, torch.uint32]
    return {str(t).removeprefix("torch."): torch.tensor([0, 1, 100]).to(t) for t in types}


def official_tresnet():
    """Two stages of each block kind under the official names, and timm's own conversion of them."""
    torch.manual_seed(1)
    sd = collections.OrderedDict()

    def conv_bn(name, o, i, k):
        sd[f"{name}.0.weight"] = torch.randn(o, i, k, k)
        for leaf in ["weight", "bias", "running_mean", "running_var"]:
            sd[f"{name}.1.{leaf}"] = torch.randn(o)

    conv_bn("body.conv1", 2, 3, 1)
    conv_bn("body.layer1.0.conv1", 2, 2, 1)
    conv_bn("body.layer1.0.conv2", 2, 2, 1)
    sd["body.layer1.0.se.fc1.weight"], sd["body.layer1.0.se.fc1.bias"] = torch.randn(1, 2, 1, 1), torch.randn(1)
    conv_bn("body.layer2.0.conv1.0", 2, 2, 1)
    sd["body.layer2.0.conv1.1.op.filt"] = torch.ones(2, 1, 3, 3)
    conv_bn("body.layer2.0.conv2", 2, 2, 1)
    conv_bn("body.layer2.0.downsample.1", 2, 2, 1)
    conv_bn("body.layer2.1.conv1", 2, 2, 1)
    conv_bn("body.layer3.0.conv1", 2, 2, 1)
    conv_bn("body.layer3.0.conv2.0", 2, 2, 1)
    conv_bn("body.layer3.0.conv3", 2, 2, 1)
    conv_bn("body.layer3.0.downsample.1", 2, 2, 1)
    sd["head.fc.weight"], sd["head.fc.bias"] = torch.randn(3, 2), torch.randn(3)
    from timm.models.tresnet import checkpoint_filter_fn

    blur = re.compile(r"filt$")
    converted = {k: v for k, v in checkpoint_filter_fn(dict(model=sd), None).items() if not blur.search(k)}
    return sd, converted


def senet_names():
    """Lines of `legacy-name timm-name shape` for the stem, first blocks and classifier of two networks."""
    import timm

    for legacy, new in [("legacy_senet154", "senet154"), ("legacy_seresnext50_32x4d", "seresnext50_32x4d")]:
        old, new = (timm.create_model(m).state_dict() for m in (legacy, new))
        for (a, x), (b, y) in zip(old.items(), new.items(), strict=True):
            assert x.shape == y.shape, (a, b)
            if not re.match(r"layer\d\.[1-9]", a):
                yield f"{legacy} {a} {b} {','.join(map(str, x.shape))}"


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    model, sd = state_dict()
    save_file(sd, OUT / "expected.safetensors")
    save_file({k: v.to(torch.bfloat16) if v.is_floating_point() else v for k, v in sd.items()}, OUT / "bf16.safetensors",
              metadata=dict(arch="resnest14d", num_classes="10", note="text"))
    for name, obj, options in checkpoints(model, sd):
        torch.save(obj, OUT / f"{name}.pth", **options)
    official, converted = official_tresnet()
    torch.save({"model": official, "num_classes": 3}, OUT / "names_tresnet.pth")
    save_file(converted, OUT / "names_tresnet_timm.safetensors")
    (OUT / "names_senet.txt").write_text("\n".join(senet_names()) + "\n")
    for file in OUT.iterdir():
        file.chmod(0o644)  # safetensors makes its files private
    print(sum(f.stat().st_size for f in OUT.iterdir()), "bytes in", OUT.name)


if __name__ == "__main__":
    main()
