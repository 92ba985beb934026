"""What the numbers say: statistics, ratios, tables, and the file of raw results."""
import datetime
import json
import pathlib
import re
import statistics

from jobs import BENCH, OURS, PEERS

COLUMNS = [OURS, *PEERS]
MIB = 1 << 20


def one_line(text: str, limit: int = 300) -> str:
    """`text` as one line for a reader elsewhere: absolute paths cut to their last part, and not too long."""
    text = re.sub(r"(?<![\w.])/(?:[\w.@+-]+/)+([\w.@+-]*)", r"\1", " ".join(text.split()))
    return text if len(text) <= limit else text[: limit - 1] + "…"


def summary(slices: list) -> dict:
    """Images per second over all rounds.

    `median` is the median of the rounds' medians, for ours as for the peers: a round of ours tells its median only, and
    a slow round, having fewer steps, would weigh less among all steps. `best` is the fastest step of all, `spread` the
    lowest and highest round.
    """
    medians = [piece.median for piece in slices]
    return {
        "median": statistics.median(medians),
        "best": max(piece.best for piece in slices),
        "spread": [min(medians), max(medians)],
    }


def others_share(slices: list) -> float:
    """Which share of the cores' time in these slices went to other processes or the host; 0 on a quiet machine."""
    busy = sum(piece.busy_seconds for piece in slices)
    own = sum(piece.own_seconds for piece in slices)
    return max(0.0, 1 - own / busy) if busy else 0.0


def best_peer(results: dict, key: str) -> str | None:
    """The peer whose `key`, "median" or "best", is highest; none if no peer ran."""
    ran = [peer for peer in PEERS if key in results.get(peer, {})]
    return max(ran, key=lambda peer: results[peer][key]) if ran else None


def ratios(results: dict) -> dict:
    """Ours to the best peer, `median` to median and `best` to best, and which peer that was."""
    found = {}
    for key in ("median", "best"):
        peer = best_peer(results, key)
        if peer is not None:
            found[f"{key}_peer"] = peer
            if key in results.get(OURS, {}):
                found[key] = results[OURS][key] / results[peer][key]
    return found


def number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def pair(results: dict, runner: str) -> str:
    """Median and best of a runner, as shown in the table."""
    result = results.get(runner, {})
    return f"{number(result['median'])} ({number(result['best'])})" if "median" in result else "-"


def ratio_text(ratio: dict) -> str:
    return f"{ratio['median']:.2f}x ({ratio['best']:.2f}x)" if "median" in ratio else "-"


def peer_text(ratio: dict) -> str:
    """The best peer, and the other one where the fastest step was another's."""
    names = [PEERS[ratio[key]] for key in ("median_peer", "best_peer") if key in ratio]
    return " (".join(dict.fromkeys(names)) + ")" * (len(set(names)) - 1) if names else "-"


def grid(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table with aligned columns: the first column to the left, all others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells):
        return "| " + " | ".join(f"{cell:{'<' if i == 0 else '>'}{widths[i]}}" for i, cell in enumerate(cells)) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if i == 0 else ":") for i, width in enumerate(widths)) + "|"
    return "\n".join([line(header), rule, *map(line, rows)])


def runner_title(runner: str) -> str:
    return PEERS.get(runner, runner)


def speed_table(cells: list[dict], runners: list[str]) -> str:
    """Images per second, median (best): a row per job, a column per runner, and ours to the best peer."""
    rows = [
        [cell["label"], *(pair(cell["results"], runner) for runner in runners), peer_text(cell["ratio"]),
         ratio_text(cell["ratio"])]
        for cell in cells
    ]
    return grid(["images/s", *map(runner_title, runners), "best peer", "ours to it"], rows)


def memory_text(result: dict) -> str:
    """Peak memory while running, while loading, and before loading, in MiB; and the time to load."""
    if "peak_run" not in result:
        return "-"
    values = [result[key] for key in ("peak_run", "peak_load", "rss_before_load") if result.get(key) is not None]
    seconds = result.get("load_seconds")
    time = f", {number(seconds)} s" if seconds is not None else ""
    return "/".join(f"{value / MIB:.0f}" for value in values) + time


def memory_table(cells: list[dict], runners: list[str]) -> str:
    """Memory and time to load: a row per job, a column per runner."""
    rows = [[cell["label"], *(memory_text(cell["results"].get(runner, {})) for runner in runners)] for cell in cells]
    return grid(["MiB run/load/before, load time", *map(runner_title, runners)], rows)


def reasons(cells: list[dict]) -> list[str]:
    """A line for each runner or variant that could not run, with the jobs that this holds for."""
    jobs: dict[str, list[str]] = {}
    for cell in cells:
        for runner, result in cell["results"].items():
            if "reason" in result:
                jobs.setdefault(f"{runner_title(runner)}: {result['reason']}", []).append(cell["label"])
            for variant, reason in result.get("failed", {}).items():
                jobs.setdefault(f"{runner_title(runner)} as {variant}: {reason}", []).append(cell["label"])
    return [f"{reason} [{', '.join(labels)}]" for reason, labels in jobs.items()]


def choices(cells: list[dict]) -> list[str]:
    """A line for each runner that has several variants: which won, with the trial's images per second of each."""
    lines = []
    for cell in cells:
        for runner, result in cell["results"].items():
            if len(result.get("tried", {})) > 1:
                tried = ", ".join(f"{variant} {number(value)}" for variant, value in result["tried"].items())
                lines.append(f"{cell['label']}, {runner_title(runner)}: {result['variant']} taken; tried {tried}")
    return lines


def disturbances(cells: list[dict], limit: float = 0.05) -> list[str]:
    """A line for each job during which other processes took more than `limit` of the cores."""
    return [
        f"{cell['label']}: other processes or the host took {cell['others_share']:.0%} of the cores' time meanwhile"
        for cell in cells if cell["others_share"] > limit
    ]


def text(results: dict) -> str:
    """The report that is printed, in Markdown."""
    cells = results["cells"]
    runners = [runner for runner in COLUMNS if any(runner in cell["results"] for cell in cells)]
    machine, settings = results["machine"], results["settings"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    parts = [
        f"{machine['cpu']} ({' '.join(machine['flags'])}), {settings['threads']} of {machine['cores']} cores, input "
        f"{settings['size']}, {settings['rounds']} rounds of {settings['seconds']:g} s; {results['date']}; "
        f"{versions}.\n"
        "Images per second: median of the rounds (fastest step).",
        speed_table(cells, runners),
        memory_table(cells, runners),
    ]
    for title, lines in [("Could not run", reasons(cells)), ("Variants", choices(cells)),
                         ("Disturbed", disturbances(cells))]:
        if lines:
            parts.append(f"{title}:\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)


def results_path(cpu: str, date: datetime.date, folder: pathlib.Path = BENCH / "results") -> pathlib.Path:
    """Where a run's results go: DATE-CPU.json, with a number after it for the second run of a day and so on."""
    slug = re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)|\bcpu\b|@.*", " ", cpu.lower())).strip("-") or "cpu"
    path, count = folder / f"{date.isoformat()}-{slug}.json", 1
    while path.exists():
        count += 1
        path = folder / f"{date.isoformat()}-{slug}-{count}.json"
    return path


def save(results: dict, path: pathlib.Path) -> None:
    """Writes raw results, one line per runner's result so that a diff of two runs can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {key: value for key, value in results.items() if key != "cells"}
    cells = []
    for cell in results["cells"]:
        facts = json.dumps({key: value for key, value in cell.items() if key != "results"})
        lines = [f"   {json.dumps(name)}: {json.dumps(rounded(result))}" for name, result in cell["results"].items()]
        cells.append(f'  {facts[:-1]}, "results": {{\n' + ",\n".join(lines) + "\n  }}")
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "cells": [\n' + ",\n".join(cells) + "\n ]\n}\n")


def rounded(value):
    """`value` with six digits in each number: what a clock tells, and no more."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value
