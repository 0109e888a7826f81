"""Growth: the results of several sizes beside each other, as a table and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def results(directory: Path) -> list[dict[str, Any]]:
    """Return the results in the folder, the smallest index first."""
    found = [
        json.loads(path.read_text())
        for path in directory.glob("index-*.json")
        if not path.stem.endswith("-plans")
    ]
    return sorted(found, key=lambda result: int(result["studies"]))


def table(listed: Sequence[dict[str, Any]]) -> str:
    """Return the results as a table in Markdown."""
    head = ["question"]
    for result in listed:
        size = f"{result['studies'] / 1e6:g} M:"
        head += [f"{size} warm p50 / p99, ms", "cold p50 / max, ms", "pages p50 / p99"]
    if len(listed) > 1:
        head += ["growth of p99 warm", "growth of pages p99"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for number, question in enumerate(listed[0]["questions"]):
        row = [question["title"]]
        for result in listed:
            one = result["questions"][number]
            row += [
                f"{one['warm']['p50_ms']:.1f} / {one['warm']['p99_ms']:.1f}",
                f"{one['cold']['p50_ms']:.0f} / {one['cold']['max_ms']:.0f}",
                f"{one['pages']['p50']:.0f} / {one['pages']['p99']:.0f}",
            ]
        if len(listed) > 1:
            first, last = (listed[end]["questions"][number] for end in (0, -1))
            row.append(f"{last['warm']['p99_ms'] / first['warm']['p99_ms']:.2f}")
            row.append(f"{last['pages']['p99'] / max(1, first['pages']['p99']):.2f}")
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    for result in listed:
        tables = ", ".join(
            f"{name} {(size['table_bytes'] + size['index_bytes']) / result['studies']:.0f}"
            for name, size in result["tables"].items()
        )
        lines.append(
            f"\n{result['studies']} studies: {result['bytes_a_study']} bytes of index a study"
            f" ({tables}); built in {result['building_s'].get('all', 0):.0f} s"
        )
    return "\n".join(lines)


def draw(directory: Path, path: Path) -> None:
    """Draw how the p99 of each question grows with the index."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "bfr"
    from matplotlib import pyplot

    listed = results(directory)
    print(table(listed))
    sizes = [result["studies"] / 1e6 for result in listed]
    figure, both = pyplot.subplots(1, 2, figsize=(13, 7))
    curves = (("warm", "p99_ms", "p99 warm, ms"), ("pages", "p99", "pages touched, p99"))
    for axes, (kind, name, label) in zip(both, curves, strict=True):
        for number, question in enumerate(listed[0]["questions"]):
            values = [max(0.1, result["questions"][number][kind][name]) for result in listed]
            axes.plot(sizes, values, marker="o", markersize=3, linewidth=1, label=question["title"])
        axes.set(xscale="log", yscale="log", xlabel="studies, millions", ylabel=label)
        axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
        axes.grid(alpha=0.3)
    both[-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})
