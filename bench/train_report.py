"""What the training numbers say: the line through peak memories, and the tables."""
import statistics

import report
from jobs import OURS, PEERS

COLUMNS = ["eager", "compile", OURS, f"{OURS} --recompute none"]
MARKS = ("<!-- bench/train_peers.py tables: begin -->", "<!-- bench/train_peers.py tables: end -->")


class NoMarks(Exception):
    """A document has no place for the tables."""


class OtherRun(Exception):
    """Results that do not belong into one table."""


def command_line(arguments: list[str]) -> str:
    """The command as it is kept with the results: files by their last name."""
    return report.one_line(" ".join(["bench/train_peers.py", *arguments]), limit=1000)


def joined(earlier: dict, now: dict) -> dict:
    """An earlier run's results with place for those of a run that goes on; refused where the two cannot be compared."""
    for key in ["machine", "versions", "settings"]:
        changed = [name for name in now[key] if earlier[key].get(name) != now[key][name] and name != OURS]
        if changed:
            raise OtherRun(f"the file's {key} differ from this run's in {', '.join(changed)}; give another --json FILE")
    ours = dict.fromkeys([earlier["versions"][OURS], now["versions"][OURS]])
    return {**earlier, "versions": {**earlier["versions"], OURS: " and ".join(ours)},
            "command": f"{earlier['command']}`, then `{now['command']}"}


def line(points: dict[int, int]) -> tuple[float, float]:
    """Bytes per image and bytes for none: the line of least squares through the peaks at several batch sizes."""
    if len(points) < 2:
        raise ValueError("a line needs two batch sizes")
    slope, intercept = statistics.linear_regression(list(points), list(points.values()))
    return slope, intercept


def memory_text(result: dict) -> str:
    """MiB per image, and the largest batch with its peak."""
    if "peak" not in result:
        return "-"
    text = f"{report.number(result['peak']['per_image'] / report.MIB)}"
    largest = result.get("max_batch")
    return f"{text}, {largest['batch']} ({largest['peak'] / report.MIB:.0f})" if largest else text


def memory_ratio(results: dict) -> str:
    """Our bytes per image to the best peer's, and our largest batch to the best peer's."""
    ran = [results[peer] for peer in PEERS if "peak" in results.get(peer, {})]
    ours = results.get(OURS, {})
    if not ran or "peak" not in ours:
        return "-"
    text = f"{ours['peak']['per_image'] / min(peer['peak']['per_image'] for peer in ran):.2f}x"
    batches = [peer["max_batch"]["batch"] for peer in ran if "max_batch" in peer]
    if batches and "max_batch" in ours:
        text += f", {ours['max_batch']['batch'] / max(batches):.2f}x"
    return text


def memory_table(rows: list[dict]) -> str:
    """A row per network and precision, a column per runner, and ours to the best peer."""
    runners = [name for name in COLUMNS if any(name in row["results"] for row in rows)]
    cells = [
        [row["label"], *(memory_text(row["results"].get(name, {})) for name in runners), memory_ratio(row["results"])]
        for row in rows
    ]
    return report.grid(["MiB per image, largest batch (its peak, MiB)", *map(report.runner_title, runners),
                        "ours to the best peer"], cells)


def text(results: dict) -> str:
    """The report that is printed, in Markdown."""
    cells, rows, settings, machine = results["cells"], results["memory"], results["settings"], results["machine"]
    runners = [name for name in COLUMNS if any(name in cell["results"] for cell in cells)]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items()
                         if name in ("python", "torch", "timm", OURS))
    parts = [
        f"{machine['cpu']} ({' '.join(machine['flags'])}), {settings['threads']} of {machine['cores']} cores, input "
        f"{settings['size']}; {results['date']}; {versions}. `{results['command']}`"
    ]
    if cells:
        parts += [f"Images per second: median of {settings['rounds']} rounds of {settings['seconds']:g} s or a step "
                  "(fastest step).", report.speed_table(cells, runners)]
    if rows:
        parts += [f"Peak resident memory: growth per image, and the largest batch under "
                  f"{settings['memory_limit'] / 2**30:.3g} GiB.", memory_table(rows)]
    parts += [f"{dtype}: not measured here, this CPU has no {dtype} instructions."
              for dtype in settings["not_measured"]]
    for title, lines in [("Could not run", report.reasons(cells + rows)), ("Variants", report.choices(cells)),
                         ("Disturbed", report.disturbances(cells))]:
        if lines:
            parts.append(f"{title}:\n\n" + "\n".join(f"- {line}" for line in lines))
    return "\n\n".join(parts)


def between_marks(document: str, text: str) -> str:
    """`document` with `text` between its marks."""
    begin, end = MARKS
    if document.count(begin) != 1 or document.count(end) != 1:
        raise NoMarks(f"the document needs the lines {begin} and {end}, once each")
    before, rest = document.split(begin)
    after = rest.split(end)[1]
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
