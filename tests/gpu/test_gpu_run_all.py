"""The script around the parts: order, limits, failures, interruptions; and once as it is."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pace import pace

SCRIPT = Path(__file__).parent / "run_all.sh"
PARTS = ["environment", "marked_tests", "bandwidth", "throughput", "tickets"]
STUB = """#!/usr/bin/env bash
# in place of Python: `stub tests/gpu/PART.py --out FILE ...`; the table is made by the real one
part=$(basename "$1" .py)
[ "$part" != table ] || exec "{python}" "$@"
echo "$@" >>"{folder}/asked"
echo '{{"whole": "'$part'"}}' >>"$3"
case $part in
    {cases}
esac
"""


def start(folder: Path, cases: str = "*) ;;", *words: str, **more: str) -> subprocess.Popen[str]:
    """The script with stubs for its parts."""
    stub = folder / "python"
    stub.write_text(STUB.format(python=sys.executable, folder=folder, cases=cases), "utf-8")
    stub.chmod(0o755)
    return subprocess.Popen(
        [SCRIPT, *(words or [str(folder / "out")])],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHON": str(stub), **more},
    )


def ended(folder: Path, cases: str = "*) ;;", *words: str, **more: str) -> tuple[int, str]:
    """Exit code and output."""
    with start(folder, cases, *words, **more) as process:
        said, _ = process.communicate(timeout=60)
    return process.returncode, said


def asked(folder: Path) -> list[str]:
    return (folder / "asked").read_text("utf-8").splitlines()


def codes(folder: Path) -> dict[str, int]:
    lines = (folder / "out" / "parts.jsonl").read_text("utf-8").splitlines()
    return {row["part"]: row["exit_code"] for row in map(json.loads, lines)}


def test_all_parts_run_in_order_each_with_a_file(tmp_path: Path) -> None:
    code, said = ended(tmp_path, "*) ;;", "--small", str(tmp_path / "out"), DEVICE="cpu")
    assert code == 0, said
    assert asked(tmp_path) == [
        f"tests/gpu/{part}.py --out {tmp_path}/out/{part}.jsonl --small --device cpu"
        for part in PARTS
    ]
    assert codes(tmp_path) == dict.fromkeys(PARTS, 0)
    assert "| tickets | " in (tmp_path / "out" / "table.md").read_text("utf-8")


def test_a_part_that_fails_stops_no_other(tmp_path: Path) -> None:
    code, _ = ended(tmp_path, "bandwidth) exit 7 ;;")
    assert code == 1
    assert len(asked(tmp_path)) == len(PARTS)
    assert codes(tmp_path) == {**dict.fromkeys(PARTS, 0), "bandwidth": 7}
    assert "| exit code 7 |" in (tmp_path / "out" / "table.md").read_text("utf-8")


def test_a_part_that_takes_too_long_is_stopped_and_the_next_runs(tmp_path: Path) -> None:
    began = time.monotonic()
    code, _ = ended(tmp_path, "throughput) sleep 60 ;;", LIMIT="1")
    assert time.monotonic() - began < 30 * pace()
    assert code == 1
    assert codes(tmp_path)["throughput"] == 124
    assert asked(tmp_path)[-1].startswith("tests/gpu/tickets.py")
    assert "| stopped at its limit |" in (tmp_path / "out" / "table.md").read_text("utf-8")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_stops_the_part_and_makes_the_table(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    with start(tmp_path, 'bandwidth) sleep 60 & echo $! >"$3.child"; wait ;;') as process:
        waiting = tmp_path / "out" / "bandwidth.jsonl.child"
        while not (waiting.exists() and waiting.read_text("utf-8")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == code
    assert codes(tmp_path) == {"environment": 0, "marked_tests": 0, "bandwidth": code}
    assert "| interrupted |" in (tmp_path / "out" / "table.md").read_text("utf-8")
    assert not Path(f"/proc/{waiting.read_text('utf-8').strip()}/exe").exists()


def test_single_parts_add_to_what_is_there(tmp_path: Path) -> None:
    ended(tmp_path, "tickets) exit 7 ;;")
    code, _ = ended(tmp_path, "*) ;;", str(tmp_path / "out"), "tickets", "bandwidth")
    assert code == 0
    assert [line.split()[0] for line in asked(tmp_path)[len(PARTS) :]] == [
        "tests/gpu/tickets.py",
        "tests/gpu/bandwidth.py",
    ]
    assert codes(tmp_path) == dict.fromkeys(PARTS, 0)


def test_a_part_that_is_none_is_told(tmp_path: Path) -> None:
    code, said = ended(tmp_path, "*) ;;", str(tmp_path / "out"), "speed")
    assert code == 1
    assert "no part is called speed" in said


def test_all_limits_together_are_thirteen_minutes_at_most() -> None:
    text = SCRIPT.read_text("utf-8")
    limits = {part: int(limit) for part, limit in re.findall(r"\[(\w+)\]=(\d+)", text)}
    (grace,) = map(int, re.findall(r"^grace=(\d+)", text, re.MULTILINE))
    assert list(limits) == PARTS
    assert sum(limits.values()) + len(PARTS) * grace <= 13 * 60 - 20  # and the table


@pytest.mark.slow
def test_the_whole_script_runs_on_a_cpu(tmp_path: Path) -> None:
    done = subprocess.run(
        [SCRIPT, "--small", tmp_path],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "table.md").read_text("utf-8")
    for row in ("| snn-vgg-16 | ReLU | 2 |", "| plain | sf-imp-1 | 50.0% |", "not run."):
        assert row in text
    assert text.count("| well |") == len(PARTS)
    assert "failed" not in text
