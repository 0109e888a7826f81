"""Growth: the results of several sizes beside each other, as a table and as a picture."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

GOAL_BYTES = 2048
GOAL_GROWTH = 1.5


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
    head = ["question, ms"]
    for result in listed:
        size = f"{result['studies'] / 1e6:g} M"
        head += [f"{size} warm p50", "p99", "cold p50", "p99"]
    if len(listed) > 1:
        head.append("growth of warm p50 / p99")
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for number, question in enumerate(listed[0]["questions"]):
        row = [question["title"]]
        for result in listed:
            one = result["questions"][number]
            for kind in ("warm", "cold"):
                row += [f"{one[kind].get(name, 0):.2f}" for name in ("p50_ms", "p99_ms")]
        if len(listed) > 1:
            row.append(" / ".join(f"{ratio:.2f}" for ratio in _growth(listed, number)))
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
    figure, axes = pyplot.subplots(figsize=(9, 7))
    for number, question in enumerate(listed[0]["questions"]):
        times = [result["questions"][number]["warm"]["p99_ms"] for result in listed]
        axes.plot(sizes, times, marker="o", markersize=3, linewidth=1, label=question["title"])
    axes.set(xscale="log", yscale="log", xlabel="studies, millions", ylabel="p99 warm, ms")
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=6, ncols=1, loc="center left", bbox_to_anchor=(1, 0.5))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, bbox_inches="tight", metadata={"Date": None})


def _growth(listed: Sequence[dict[str, Any]], number: int) -> list[float]:
    first, last = (listed[end]["questions"][number]["warm"] for end in (0, -1))
    return [last[name] / first[name] for name in ("p50_ms", "p99_ms")]
