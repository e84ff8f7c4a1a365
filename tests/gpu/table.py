"""A table in Markdown of what the parts have left in a folder: `table.py DIR` writes DIR/table.md.

Whatever is missing or was cut in the middle of a line is left out, with a word.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ENDS = {
    0: "well",
    124: "stopped at its limit",
    137: "killed at its limit",
    130: "interrupted",
    143: "interrupted",
}
"""By the exit code that `timeout`, or run_all.sh, gives."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the table, and print it."""
    folder = Path((arguments or sys.argv[1:])[0])
    text = make_page({path.stem: read_lines(path) for path in sorted(folder.glob("*.jsonl"))})
    (folder / "table.md").write_text(text, "utf-8")
    print(text)


def read_lines(path: Path) -> tuple[list[Row], int]:
    """The rows of a file, and how many of its lines are none."""
    rows, broken = [], 0
    for line in path.read_text("utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        else:
            broken += 1
    return rows, broken


def make_page(found: dict[str, tuple[list[Row], int]]) -> str:
    """The page, from rows and broken lines by part."""
    lines = ["# On a GPU", ""]
    for part, write in PARTS.items():
        rows, broken = found.get(part, ([], 0))
        try:
            lines += [*write(rows), ""] if rows else [f"No {part}.", ""]
        except (KeyError, TypeError, ValueError) as error:  # of the others the table is made
            lines += [f"Rows of {part} are not as they should be: {error!r}.", ""]
        if broken:
            lines += [f"{broken} lines of {part} were cut off.", ""]
    return "\n".join(lines)


def write_environment(rows: Sequence[Row]) -> Iterator[str]:
    """The device and the versions."""
    row = rows[-1]
    memory = f", {row['memory_gb']:.0f} GB" if "memory_gb" in row else ""
    packages = "".join(f", {name} {version}" for name, version in row["packages"].items())
    yield f"{row['device']}{memory}; snnprune {row['snnprune']}, Python {row['python']}{packages}."
    for key, what in (("missing", "snnprune"), ("missing_for_tests", "the tests")):
        if row[key]:
            yield f"Not installed, of what {what} need: {', '.join(row[key])}."


def write_tests(rows: Sequence[Row]) -> Iterator[str]:
    """How many ended how; those that failed by name."""
    counts: dict[str, int] = {}
    for row in rows:
        if "outcome" in row:
            counts[row["outcome"]] = counts.get(row["outcome"], 0) + 1
    yield from title("Tests")
    yield ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items())) + "."
    yield from write_reasons(rows, "test")


def write_bandwidth(rows: Sequence[Row]) -> Iterator[str]:
    """GB/s of each candidate, beside those of a copy."""
    yield from title("Bandwidth of neurons")
    yield "GB/s of what has to be moved (ms, the share of a copy's GB/s)."
    yield ""
    timed = [row for row in rows if "gb_per_s" in row]
    copies = {case_of(row): row["gb_per_s"] for row in timed if row["candidate"] == "copy"}
    passes = [row for row in timed if row["candidate"] != "copy"]
    names = list(dict.fromkeys(row["candidate"] for row in passes))
    lines: dict[tuple[str, str, str], dict[str, str]] = {}
    for row in passes:
        line = lines.setdefault((*case_of(row), row["direction"]), {})
        line[row["candidate"]] = cell_of(row, copies.get(case_of(row)))
    yield from make_table(
        ["current (T, N, C, H, W)", "type", "pass", "copy", *names],
        [
            [*key, number(copies.get(key[:2]), ".4g"), *(line.get(name, "-") for name in names)]
            for key, line in lines.items()
        ],
    )
    yield from write_best(passes)
    yield from write_other_spikes(rows)
    yield from write_reasons(rows, "candidate")


def write_other_spikes(rows: Sequence[Row]) -> Iterator[str]:
    """Whose spikes are not those of `plain`."""
    for row in rows:
        if share := row.get("other_spikes"):
            where = ", ".join((row["candidate"], *case_of(row)))
            yield f"* {where}: {share:.2%} of the spikes are not those of plain."


def case_of(row: Row) -> tuple[str, str]:
    """Shape and type, as they are written."""
    return "(" + ", ".join(map(str, row["shape"])) + ")", row["dtype"]


def cell_of(row: Row, copy: float | None) -> str:
    """GB/s, milliseconds and the share of a copy's."""
    share = f", {row['gb_per_s'] / copy:.0%}" if copy else ""
    return f"{row['gb_per_s']:.4g} ({row['ms']:.3f} ms{share})"


def write_best(passes: Sequence[Row]) -> Iterator[str]:
    """How many times as long as the kernels the best of SpikingJelly takes."""
    cases: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in passes:
        cases.setdefault((*case_of(row), row["direction"]), {})[row["candidate"]] = row["ms"]
    yield ""
    for case, ms in cases.items():
        theirs = [name for name in ms if name.startswith("SpikingJelly")]
        if theirs and "triton" in ms:
            best = min(theirs, key=ms.__getitem__)
            yield f"* {', '.join(case)}: {best} takes {ms[best] / ms['triton']:.2f}x as long."


def write_throughput(rows: Sequence[Row]) -> Iterator[str]:
    """Images/s and memory of each network, beside those with ReLU."""
    yield from title("Training")
    relu = {row["model"]: row.get("images_per_s") for row in rows if row["neurons"] == "ReLU"}
    yield from make_table(
        ["network", "neurons", "batch", "images/s", "of ReLU's", "ms a step", "peak GB"],
        [
            [
                *(row["model"], row["neurons"], str(row["batch"])),
                number(row["images_per_s"], ".4g"),
                share_of(relu.get(row["model"]), row["images_per_s"]),
                *(number(row["ms"], ".1f"), number(row["peak_gb"], ".2f")),
            ]
            for row in rows
            if "images_per_s" in row
        ],
    )
    yield from write_reasons(rows, "model", "neurons")


def write_tickets(rows: Sequence[Row]) -> Iterator[str]:
    """The tickets of the short run."""
    yield from title("A short imp of Fashion-MNIST")
    yield from make_table(
        ["neurons", "method", "sparsity", "test accuracy", "after"],
        [
            [
                *(row["neurons"], row["method"], f"{row['sparsity']:.1%}"),
                *(f"{row['accuracy']:.1%}", f"{row['since_start']:.0f} s"),
            ]
            for row in rows
            if "method" in row
        ],
    )
    yield from write_reasons(rows, "neurons")


def write_parts(rows: Sequence[Row]) -> Iterator[str]:
    """How each part ended, by its last run."""
    yield from title("Parts")
    last = {row["part"]: row for row in rows}
    yield from make_table(
        ["part", "seconds", "of", "ended"],
        [
            [
                *(part, str(row["seconds"]), str(row["limit"])),
                ENDS.get(row["exit_code"], f"exit code {row['exit_code']}"),
            ]
            for part, row in last.items()
        ],
    )


PARTS: dict[str, Callable[[Sequence[Row]], Iterator[str]]] = {
    "environment": write_environment,
    "marked_tests": write_tests,
    "bandwidth": write_bandwidth,
    "throughput": write_throughput,
    "tickets": write_tickets,
    "parts": write_parts,
}


def write_reasons(rows: Iterable[Row], *keys: str) -> Iterator[str]:
    """What was not to be had or failed, each once."""
    said = []
    for row in rows:
        name = ", ".join(str(row[key]) for key in keys if key in row)
        for key, words in (("absent", "not to be had"), ("failed", "failed")):
            if key in row:
                said.append(f"* {name + ' ' if name else ''}{words}: {escape(row[key])}")
    yield from ["", *dict.fromkeys(said)] if said else []


def title(text: str) -> Iterator[str]:
    """A heading."""
    yield f"## {text}"
    yield ""


def make_table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table in Markdown."""
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield f"| {' | '.join(map(escape, row))} |"


def escape(text: str) -> str:
    """Text that ends neither a cell nor a line."""
    return " ".join(text.split()).replace("|", "\\|")


def number(value: float | None, form: str) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else format(value, form)


def share_of(whole: float | None, value: float) -> str:
    """What `value` is of `whole`, or a dash."""
    return f"{value / whole:.0%}" if whole else "-"


if __name__ == "__main__":
    main()
