"""Code of one's own that never ends: a word on stderr, Ctrl-C gets through, a limit if asked."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from one_line import assert_one_line
from pace import pace

from snnprune.plugins import waiting

Run = Callable[..., subprocess.CompletedProcess[str]]
NEVER = """
import ctypes
import os
import sys
import threading
import time

import torch
from snnprune import criterion as scoring
from snnprune.models.networks import conv_snn

X, Y = torch.zeros(4, 1, 28, 28), torch.zeros(4, dtype=torch.int64)


def begun():
    print("BEGUN", file=sys.stderr, flush=True)


def build():
    return conv_snn(in_channels=1, size=28, classes=10, width=4, depth=2, time_steps=2)


def tight():
    begun()
    while True:
        pass


def sleeps():
    begun()
    time.sleep(10_000)


def waits():
    lock = threading.Lock()
    lock.acquire()
    begun()
    lock.acquire()


def swallows():
    begun()
    while True:
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            pass


def in_c():
    begun()
    while True:
        ctypes.CDLL(None).sleep(1000)


def blocks():
    yield X, Y
    begun()
    time.sleep(10_000)


class Loops:
    def __len__(self):
        begun()
        while True:
            pass

    def __iter__(self):
        yield X, Y


def loops():
    return Loops()


def endless():
    begun()
    while True:
        yield X, Y


def forward(model, x):
    begun()
    time.sleep(10_000)


def leaves():
    os._exit(0)


def data():
    return [(X, Y)]


@scoring(needs="weight")
def criterion(evidence):
    begun()
    time.sleep(10_000)


def repair(pruned):
    begun()
    time.sleep(10_000)
"""


@pytest.fixture
def mine(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `never.py` and `model.safetensors`."""
    monkeypatch.chdir(tmp_path)
    Path("never.py").write_text(NEVER)
    Path("model.safetensors").write_bytes(model_file.read_bytes())
    return tmp_path


@pytest.fixture
def limited(monkeypatch: pytest.MonkeyPatch, run: Run) -> Run:
    """Runs the tool with a limit that honest code keeps, and little patience after it."""
    monkeypatch.setattr(waiting, "GRACE", 0.3)

    def limited_run(*arguments: object, named: str) -> subprocess.CompletedProcess[str]:
        seconds = 2 * pace()
        while True:
            monkeypatch.setenv(waiting.LIMIT, f"{seconds:.3f}")
            done = run(*arguments)
            if done.returncode != 3 or named in done.stderr or seconds > 100:
                return done
            seconds *= 4  # a busy machine held up the honest code around it for most of that

    return limited_run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--model", "tight"),
        ("--model", "sleeps"),
        ("--data", "sleeps"),
        ("--data", "blocks"),
        ("--forward", "forward"),
    ],
)
def test_what_never_ends_ends_at_the_limit_and_is_named(
    flag: str, name: str, mine: Path, limited: Run
) -> None:
    flags = {"--model": "never.py:build", "--data": "never.py:data", flag: f"never.py:{name}"}
    given = [part for pair in flags.items() for part in pair]
    done = limited("eval", "model.safetensors", *given, named=f"never.py:{name}")
    assert_one_line(done, 3, flag, f"never.py:{name}", "did not end in", waiting.LIMIT)


@pytest.mark.slow
@pytest.mark.parametrize("flag", ["--criterion", "--repair"])
def test_a_criterion_or_repair_that_never_ends_leaves_the_output_alone(
    flag: str, mine: Path, limited: Run
) -> None:
    Path("out.safetensors").write_text("precious")
    given = ("--model", "never.py:build", "--data", "never.py:data", "--sparsity", "0.5")
    what = f"never.py:{flag[2:]}"
    flags = {"--criterion": "magnitude", flag: what}
    out = ("--force", "-o", "out.safetensors")
    words = [part for pair in flags.items() for part in pair]
    done = limited("prune", "model.safetensors", *given, *words, *out, named=what)
    assert_one_line(done, 3, what, "did not end")
    assert Path("out.safetensors").read_text() == "precious"
    assert not list(mine.glob(".snnprune-*"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["loops", "endless"])
def test_batches_that_cannot_be_counted_end_at_the_limit(
    name: str, mine: Path, limited: Run
) -> None:
    flags = ("--set", f"data.name=never.py:{name}", "--set", "model.name=never.py:build")
    given = ("--set", "model.args={}", "--out", "run")
    done = limited("train", "--recipe", "smoke", *flags, *given, named=f"never.py:{name}")
    assert_one_line(done, 3, f"never.py:{name}", "did not end in")


def started(
    *command: str, first_word: float = 30.0, grace: float = waiting.GRACE, **environment: str
) -> subprocess.Popen[str]:
    """The tool in a process of its own, with a first word and patience of so many seconds."""
    code = (
        "import snnprune.plugins.waiting as w, sys; from snnprune.cli import main;"
        f"w.FIRST_WORD, w.GRACE = {first_word}, {grace}; main(sys.argv[1:])"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )


def told_until(child: subprocess.Popen[str], word: str) -> list[str]:
    """The lines of stderr up to one with the word."""
    lines: list[str] = []
    assert child.stderr is not None
    for line in child.stderr:
        lines.append(line)
        if word in line:
            return lines
    raise AssertionError(lines)


@pytest.mark.many(1)
@pytest.mark.parametrize("name", ["tight", "waits", "swallows", "in_c"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_code_that_never_ends_even_if_it_swallows_it(
    number: signal.Signals, code: int, name: str, mine: Path
) -> None:
    child = started("inspect", "model.safetensors", "--model", f"never.py:{name}", "--json")
    told_until(child, "BEGUN")
    began = time.monotonic()
    child.send_signal(number)
    out, err = child.communicate(timeout=300)
    assert child.returncode == code, err
    assert "Traceback" not in err
    assert time.monotonic() - began < (waiting.GRACE + 5) * pace()
    assert not out or json.loads(out)["error"]["code"] == code


@pytest.mark.slow
def test_a_second_signal_ends_what_swallows_the_first_at_once(mine: Path) -> None:
    child = started("inspect", "model.safetensors", "--model", "never.py:swallows", grace=300)
    told_until(child, "BEGUN")
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    time.sleep(0.5)  # else both may come as one
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=300)
    assert child.returncode in (130, -signal.SIGINT)  # which a shell calls 130 too
    assert time.monotonic() - began < 100


@pytest.mark.slow
def test_what_takes_long_is_named_with_its_seconds_unless_quiet(mine: Path) -> None:
    words = ("inspect", "model.safetensors", "--model", "never.py:sleeps")
    child = started(*words, first_word=0.5)
    line = told_until(child, "still waiting")[-1]
    assert "never.py:sleeps" in line
    assert "Ctrl-C ends it" in line
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=300)
    child = started(*words, "-q", first_word=0.5)
    told_until(child, "BEGUN")
    time.sleep(2 * waiting.TICK + 0.5)
    child.send_signal(signal.SIGTERM)
    assert "still waiting" not in child.communicate(timeout=300)[1]


@pytest.mark.slow
def test_code_that_swallows_the_interrupt_of_the_limit_is_told_in_one_json_object(
    mine: Path,
) -> None:
    words = ("inspect", "model.safetensors", "--model", "never.py:swallows", "--json")
    child = started(*words, SNNPRUNE_TIME_LIMIT="1")
    out, err = child.communicate(timeout=300)
    assert child.returncode == 3, err
    error: dict[str, Any] = json.loads(out)["error"]
    assert error["field"] == "--model"
    assert "never.py:swallows did not end in 1 s" in error["message"]


@pytest.mark.slow
def test_leaving_by_os_exit_is_told_with_json(mine: Path) -> None:
    child = started("inspect", "model.safetensors", "--model", "never.py:leaves", "--json")
    out, err = child.communicate(timeout=300)
    assert child.returncode == 3, err
    assert "never.py:leaves raised SystemExit: os._exit(0)" in json.loads(out)["error"]["message"]


@pytest.mark.parametrize("text", ["soon", "-1", "0", "nan", "inf", "10m"])
def test_a_limit_that_is_no_number_of_seconds_is_a_usage_error(
    text: str, model_file: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(waiting.LIMIT, text)
    assert_one_line(run("inspect", model_file), 2, waiting.LIMIT, "no number of seconds")


def test_a_process_that_user_code_forks_may_leave_by_os_exit(mine: Path, run: Run) -> None:
    Path("forks.py").write_text(
        "import os\nfrom never import build as made\ndef build():\n"
        "    child = os.fork()\n    if not child:\n        os._exit(7)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n    return made()\n"
    )
    data = ("--data", "never.py:data")
    done = run("eval", "model.safetensors", "--model", "forks.py:build", *data)
    assert done.returncode == 0, done.stderr


def test_nothing_of_the_watch_is_left_behind(model_file: Path, run: Run) -> None:
    before = signal.getsignal(waiting.TIME_IS_UP)
    leave = os._exit
    assert run("inspect", model_file).returncode == 0
    assert signal.getsignal(waiting.TIME_IS_UP) == before
    assert signal.set_wakeup_fd(-1) == -1
    assert os._exit is leave
