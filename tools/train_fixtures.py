"""Golden values for crates/train: schedules of PyTorch and timm, metrics of scikit-learn.

    python tools/train_fixtures.py        # needs torch, timm, scikit-learn; writes fixtures/train/*.json
"""
import json
import pathlib

import numpy as np
import torch
from sklearn import metrics
from timm.scheduler import CosineLRScheduler, PolyLRScheduler

OUT = pathlib.Path(__file__).parent.parent / "fixtures/train"


def optimizer(lr, momentum=0.9, adam=False):
    weights = [torch.nn.Parameter(torch.zeros(1))]
    if adam:
        return torch.optim.Adam(weights, lr=lr, betas=(momentum, 0.999))
    return torch.optim.SGD(weights, lr=lr, momentum=momentum)


def one_cycle(recipe, steps_per_epoch, adam=False, **options):
    """The rates before each update."""
    lr = recipe["lr"]
    opt = optimizer(lr, adam=adam)
    sched = torch.optim.lr_scheduler.OneCycleLR(
        opt, max_lr=lr, epochs=recipe["epochs"], steps_per_epoch=steps_per_epoch, **options)
    rows = []
    for step in range(recipe["epochs"] * steps_per_epoch):
        group = opt.param_groups[0]
        rows.append([group["lr"], group["betas"][0] if adam else group["momentum"]])
        opt.step()
        if step + 1 < recipe["epochs"] * steps_per_epoch:
            sched.step()
    keep = options.get("cycle_momentum", True)
    return [[lr, momentum if keep else None] for lr, momentum in rows]


def timm(kind, recipe, steps_per_epoch, **options):
    opt = optimizer(recipe["lr"])
    sched = kind(opt, t_in_epochs=False, warmup_t=recipe.get("warmup_epochs", 0) * steps_per_epoch,
                 warmup_lr_init=recipe.get("warmup_lr", 0.0), **options)
    rows = []
    for step in range(recipe["epochs"] * steps_per_epoch):
        sched.step_update(step)
        rows.append([opt.param_groups[0]["lr"], None])
    return rows


def schedules():
    cases = []

    def add(recipe, steps, values):
        cases.append({"recipe": recipe, "steps_per_epoch": steps, "rates": values})

    for epochs, steps, pct, div in [(4, 7, 0.3, 25.0), (10, 3, 0.1, 20.0), (5, 11, 0.2, 25.0)]:
        r = {"sched": "onecycle", "lr": 0.4, "epochs": epochs, "pct_start": pct, "div_factor": div}
        add(r | {"cycle_momentum": False}, steps, one_cycle(r, steps, pct_start=pct, div_factor=div, cycle_momentum=False))
        add(r | {"cycle_momentum": True}, steps, one_cycle(r, steps, pct_start=pct, div_factor=div))
    r = {"sched": "onecycle", "lr": 1e-4, "epochs": 8, "pct_start": 0.2, "opt": "adam", "cycle_momentum": True}
    add(r, 5, one_cycle(r, 5, adam=True, pct_start=0.2))

    # timm extends a prefixed warm-up behind the cycle's length; here the epochs are the whole run.
    r = {"sched": "cosine", "lr": 0.1, "epochs": 10, "warmup_epochs": 2, "warmup_lr": 1e-3, "min_lr": 1e-5, "warmup_prefix": True}
    add(r, 6, timm(CosineLRScheduler, r, 6, t_initial=8 * 6, lr_min=1e-5, warmup_prefix=True))
    r = r | {"warmup_prefix": False, "cooldown_epochs": 2}
    add(r, 6, timm(CosineLRScheduler, r, 6, t_initial=8 * 6, lr_min=1e-5, warmup_prefix=False))
    r = {"sched": "poly", "lr": 0.1, "epochs": 9, "warmup_epochs": 1, "warmup_lr": 0.0, "min_lr": 1e-4, "power": 0.9, "warmup_prefix": True}
    add(r, 5, timm(PolyLRScheduler, r, 5, t_initial=8 * 5, lr_min=1e-4, power=0.9, warmup_prefix=True))
    opt = optimizer(0.1)
    sched = torch.optim.lr_scheduler.MultiStepLR(opt, [4 * 4, 7 * 4, 8 * 4], gamma=0.2)
    rows = []
    for _ in range(40):
        rows.append([opt.param_groups[0]["lr"], None])
        opt.step()
        sched.step()
    add({"sched": "step", "lr": 0.1, "epochs": 10, "warmup_epochs": 0, "decay_milestones": [4, 7, 8], "decay_rate": 0.2},
        4, rows)

    # ResNeSt's: PyTorch's own cosine behind a linear rise.
    opt = optimizer(0.2)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=40)
    rows = []
    for _ in range(40):
        rows.append([opt.param_groups[0]["lr"], None])
        opt.step()
        sched.step()
    add({"sched": "cosine", "lr": 0.2, "epochs": 10, "warmup_epochs": 0}, 4, rows)
    return cases


def single_label(rng):
    n, classes = 60, 7
    labels = rng.integers(0, classes - 1, n)  # the last class has no image
    scores = rng.normal(size=(n, classes)).astype(np.float32)
    scores[np.arange(n), labels] += 1.5
    scores[:, 5] -= 100  # and this one is never predicted
    predicted = scores.argmax(1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0)
    macro = metrics.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0, average="macro")
    return {
        "classes": classes, "labels": labels.tolist(), "scores": scores.flatten().tolist(),
        "top1": 100 * metrics.top_k_accuracy_score(labels, scores, k=1, labels=range(classes)),
        "top5": 100 * metrics.top_k_accuracy_score(labels, scores, k=5, labels=range(classes)),
        "confusion": metrics.confusion_matrix(labels, predicted, labels=range(classes)).tolist(),
        "precision": (100 * precision).tolist(), "recall": (100 * recall).tolist(),
        "f1": (100 * f1).tolist(), "support": support.tolist(),
        "macro": [100 * value for value in macro[:3]],
    }


def multi_label(rng, ties):
    n, classes = 50, 6
    targets = rng.random((n, classes)) < [0.3, 0.5, 0.1, 0.05, 0.6, 0.0]
    scores = np.clip(0.35 + 0.3 * targets + 0.2 * rng.normal(size=(n, classes)), 0, 1).astype(np.float32)
    if ties:
        scores = np.round(scores, 1).astype(np.float32)
    average = [100 * metrics.average_precision_score(targets[:, k], scores[:, k]) if targets[:, k].any() else 0.0
               for k in range(classes)]
    predicted = scores > np.float32(0.5)
    cp, cr, macro_f1, _ = metrics.precision_recall_fscore_support(targets, predicted, average="macro", zero_division=0)
    op, orr, of1, _ = metrics.precision_recall_fscore_support(targets, predicted, average="micro", zero_division=0)
    return {
        "classes": classes, "scores": scores.flatten().tolist(),
        "labels": [np.flatnonzero(row).tolist() for row in targets],
        "average_precision": average, "mAP": float(np.mean(average)),
        "CP": 100 * cp, "CR": 100 * cr, "CF1": 200 * cp * cr / (cp + cr), "macro_f1": 100 * macro_f1,
        "OP": 100 * op, "OR": 100 * orr, "OF1": 100 * of1, "absent": int((~targets.any(0)).sum()),
    }


def main():
    rng = np.random.default_rng(0)
    OUT.mkdir(parents=True, exist_ok=True)
    golden = {"single_label": single_label(rng), "multi_label": [multi_label(rng, False), multi_label(rng, True)]}
    (OUT / "schedules.json").write_text(json.dumps(schedules()) + "\n")
    (OUT / "metrics.json").write_text(json.dumps(golden) + "\n")


main()
