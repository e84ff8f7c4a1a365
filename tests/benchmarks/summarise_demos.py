"""Mean and spread over demos of several seeds, as a Markdown table.

for seed in 0 1 2; do snnprune demo --seed $seed --out demo-$seed; done
python tests/benchmarks/summarise_demos.py demo-0 demo-1 demo-2
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def accuracies(reports: list[dict[str, Any]], criterion: str, repair: str, s: float) -> list[float]:
    """Test accuracy in percent of the same pruned network in every report."""
    return [
        100 * point["correct"] / point["labelled"]
        for report in reports
        for point in report["points"]
        if (point["criterion"], point["repair"], point["sparsity"]) == (criterion, repair, s)
    ]


def cell(values: list[float]) -> str:
    """Mean and half of the range between the lowest and the highest."""
    return f"{statistics.mean(values):.1f} ± {(max(values) - min(values)) / 2:.1f}"


def main(folders: list[str]) -> None:
    """Print the table of the demos in `folders`."""
    reports = [json.loads((Path(folder) / "report.json").read_text()) for folder in folders]
    points = reports[0]["points"]
    sparsities = sorted({point["sparsity"] for point in points})
    print("| criterion | repair | " + " | ".join(f"{s:.0%}" for s in sparsities) + " |")
    print("|---" * (len(sparsities) + 2) + "|")
    for criterion, repair in dict.fromkeys((p["criterion"], p["repair"]) for p in points):
        found = [accuracies(reports, criterion, repair, s) for s in sparsities]
        cells = [cell(values) if values else "" for values in found]
        print(f"| {criterion} | {repair} | " + " | ".join(cells) + " |")
    dense = [100 * report["dense"]["accuracy"] for report in reports]
    print(f"\ndense {cell(dense)}; n = {len(reports)} seeds; {reports[0]['versions']}")


if __name__ == "__main__":
    main(sys.argv[1:])
