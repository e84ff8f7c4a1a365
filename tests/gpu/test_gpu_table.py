"""The table of the GPU check, of whole files, cut ones and none."""

import json
from pathlib import Path
from typing import Any

import pytest
import table

ROWS: dict[str, list[dict[str, Any]]] = {
    "environment": [
        {
            "device": "Some GPU", "memory_gb": 141.2, "snnprune": "0.1.0", "python": "3.12.3",
            "packages": {"torch": "2.11.0"}, "missing": [], "missing_for_tests": ["norse"],
        }
    ],
    "marked_tests": [
        {"test": "tests/test_gpu.py::test_a", "outcome": "passed", "seconds": 1.0},
        {"test": "tests/test_gpu.py::test_b[x|y]", "outcome": "failed", "failed": "assert 1 == 2"},
    ],
    "bandwidth": [
        {"candidate": "copy", "direction": "copy", "ms": 1.0, "gb_per_s": 4000.0},
        {"candidate": "triton", "other_spikes": 0.0},
        {"candidate": "triton", "direction": "forward", "ms": 1.25, "gb_per_s": 3200.0},
        {"candidate": "SpikingJelly auto", "other_spikes": 0.015},
        {"candidate": "SpikingJelly auto", "direction": "forward", "ms": 4.0, "gb_per_s": 1000.0},
        {"candidate": "SpikingJelly triton", "direction": "forward", "ms": 2.0, "gb_per_s": 2000.0},
        {"candidate": "SpikingJelly cupy", "absent": "has cuda\nin its place"},
    ],
    "throughput": [
        {"model": "res-snn-19", "neurons": "triton", "side": 32, "batch": 64, "images_per_s": 900.0,
         "ms": 71.1, "peak_gb": 12.345},
        {"model": "res-snn-19", "neurons": "loop", "side": 32, "failed": "OutOfMemoryError: CUDA"},
        {"model": "res-snn-19", "neurons": "ReLU", "side": 32, "batch": 64, "images_per_s": 1000.0,
         "ms": 64.0, "peak_gb": None},
    ],
    "tickets": [
        {"neurons": "plain", "method": "imp", "sparsity": 0.8, "accuracy": 0.875, "since_start": 9},
        {"neurons": "plain", "exit_code": 0, "seconds": 12.0},
    ],
    "parts": [
        {"part": "bandwidth", "exit_code": 1, "seconds": 3, "limit": 130},
        {"part": "bandwidth", "exit_code": 124, "seconds": 130, "limit": 130},
    ],
}  # fmt: skip
for _row in ROWS["bandwidth"]:
    _row.update(shape=[4, 64, 8, 8], dtype="bfloat16")
WANTED = """
Some GPU, 141 GB; snnprune 0.1.0, Python 3.12.3, torch 2.11.0.
Not installed, of what the tests need: norse.
1 failed, 1 passed.
* tests/test_gpu.py::test_b[x|y] failed: assert 1 == 2
| current (T, N, C, H, W) | type | pass | copy | triton | SpikingJelly auto | SpikingJelly triton |
| (4, 64, 8, 8) | bfloat16 | forward | 4000 | 3200 (1.250 ms, 80%) | 1000 (4.000 ms, 25%) | 2000 (2.000 ms, 50%) |
* (4, 64, 8, 8), bfloat16, forward: SpikingJelly triton takes 1.60x as long.
* SpikingJelly auto, (4, 64, 8, 8), bfloat16: 1.50% of the spikes are not those of plain.
* SpikingJelly cupy not to be had: has cuda in its place
| res-snn-19 | triton | 64 | 900 | 90% | 71.1 | 12.35 |
| res-snn-19 | ReLU | 64 | 1000 | 100% | 64.0 | - |
* res-snn-19, loop failed: OutOfMemoryError: CUDA
| plain | imp | 80.0% | 87.5% | 9 s |
| bandwidth | 130 | 130 | stopped at its limit |
"""  # noqa: E501


def write(folder: Path, **texts: str) -> str:
    """The table of files with these texts."""
    for name, text in texts.items():
        (folder / f"{name}.jsonl").write_text(text, "utf-8")
    table.main([str(folder)])
    return (folder / "table.md").read_text("utf-8")


def text_of(part: str) -> str:
    return "".join(f"{json.dumps(row)}\n" for row in ROWS[part])


def test_each_row_is_in_the_table(tmp_path: Path) -> None:
    found = write(tmp_path, **{part: text_of(part) for part in ROWS}).splitlines()
    for line in WANTED.strip().splitlines():
        assert line in found
    assert sum(line.startswith("| bandwidth") for line in found) == 1


def test_of_a_file_cut_in_a_line_the_lines_before_are_in_the_table(tmp_path: Path) -> None:
    found = write(tmp_path, throughput=text_of("throughput")[:-20])
    assert "| res-snn-19 | triton | 64 | 900 | - |" in found
    assert "1 lines of throughput were cut off." in found


@pytest.mark.parametrize("part", table.PARTS)
def test_a_part_cut_anywhere_leaves_a_table_with_the_others(part: str, tmp_path: Path) -> None:
    whole, text = {name: text_of(name) for name in ROWS}, text_of(part)
    for end in range(0, len(text), 31):
        found = write(tmp_path, **{**whole, part: text[:end]})
        other = "| plain | imp |" if part != "tickets" else "| res-snn-19 | triton |"
        assert other in found


def test_of_nothing_there_is_a_table_that_says_so(tmp_path: Path) -> None:
    found = write(tmp_path)
    assert [f"No {part}." in found for part in table.PARTS] == [True] * len(table.PARTS)


@pytest.mark.parametrize("line", ['{"neurons": 1}', "[1, 2]", "\\u0000", '{"model": null}'])
def test_rows_that_are_none_of_ours_do_not_keep_the_others_out(line: str, tmp_path: Path) -> None:
    found = write(tmp_path, throughput=f"{line}\n", tickets=text_of("tickets"))
    assert "| plain | imp |" in found
    assert len(found.splitlines()) > 10


def test_a_bar_or_a_line_ends_no_cell() -> None:
    assert table.escape("a|b\nc") == "a\\|b c"
