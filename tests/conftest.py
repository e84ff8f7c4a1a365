"""Fixtures that several test files share."""

import collections
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xdist
from left_out import LeftOut
from needed import require_all
from valid_reports import assert_valid

from snnprune.cli import run_app, run_command
from snnprune.files.writing import replace_file

require_all()

# one thread each: workers that wait for each other's threads are many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

# its assertions, in classes that test files subclass, tell both sides as theirs do
pytest.register_assert_rewrite("behaviour")

Done = subprocess.CompletedProcess[str]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeftOut(), "left-out")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """One file is done before two workers have come up."""
    files = [word for word in config.args if ".py" in word]
    return 0 if files and len(files) == len(config.args) else 2


@pytest.hookimpl(tryfirst=True)  # before what -m leaves out is chosen
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test marked `many(n)` the first n cases are for every run, the others for -m slow."""
    seen: collections.Counter[str] = collections.Counter()
    for item in items:
        if mark := item.get_closest_marker("many"):
            name = item.nodeid.partition("[")[0]
            seen[name] += 1
            if seen[name] > mark.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_sessionstart(session: pytest.Session) -> None:
    if xdist.is_xdist_controller(session):
        return  # it runs no test
    # a shell that starts pytest in the background has it ignored, and so would every child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from hypothesis import settings

    # the first call into torch alone takes longer than hypothesis allows an example
    settings.register_profile("snnprune", deadline=None)
    settings.load_profile("snnprune")


def in_a_process(*arguments: object) -> Done:
    """Run the tool as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "snnprune", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        # one thread: two that wait for each other are slow where another test suite runs beside
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"},
    )
    assert_as_promised(done)
    return done


def in_this_process(*arguments: object) -> Done:
    """Run the tool through the same entry point, without waiting for torch once more."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "80")
        patch.setenv("NO_COLOR", "1")
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run_app(run_command, [str(argument) for argument in arguments])
    done = subprocess.CompletedProcess(
        list(map(str, arguments)), code, out.getvalue(), err.getvalue()
    )
    assert_as_promised(done)
    return done


def assert_as_promised(done: Done) -> None:
    """Whatever command a test runs with --json: what it prints is what the schema says."""
    if "--json" in done.args and done.stdout:
        found = json.loads(done.stdout)
        assert (done.returncode == 0) is found["ok"]
        assert_valid(found)


@pytest.fixture(scope="session")
def process() -> Callable[..., Done]:
    """`process("inspect", path)`: the tool in a process of its own."""
    return in_a_process


@pytest.fixture(scope="session")
def run() -> Callable[..., Done]:
    """`run("inspect", path)`: the same in this process, for the many quick cases."""
    return in_this_process


@pytest.fixture(scope="session", autouse=True)
def _unsynced() -> Iterator[None]:
    """Nothing waits for the disk: no test switches the machine off."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def _notes_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the home folder of whoever runs it."""
    ours = tmp_path_factory.getbasetemp()
    # workers share what one of them has built
    cache = (ours.parent if "PYTEST_XDIST_WORKER" in os.environ else ours) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are made up to the moment of drawing, which takes longer than a small run."""

    def blank(figure: object, path: Path) -> None:
        with replace_file(path) as temporary:
            temporary.write_bytes(b"")

    monkeypatch.setattr("snnprune.report.plots.canvas.save_figure", blank)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small network trained by the tool on bundled images."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = in_this_process("train", "--recipe", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of half the width, for what does not depend on how wide it is."""
    folder = tmp_path_factory.mktemp("small") / "run"
    flags = ("--set", "model.args.width=4", "--out", folder)
    done = in_this_process("train", "--recipe", "smoke", *flags)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def model_file(small: Path) -> Path:
    """Its checkpoint."""
    return small / "model.safetensors"


@pytest.fixture(scope="session")
def as_json() -> Callable[[Done], Any]:
    """What a command printed with --json; stdout must hold one object and nothing else."""
    return lambda done: json.loads(done.stdout)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that says which network and data it is of."""
    import torch  # here, as the number of its threads is set above

    from snnprune.checkpoint.safetensors import write_safetensors
    from snnprune.data import DataSpec
    from snnprune.jobs.targets.provenance import make_metadata
    from snnprune.models import ModelSpec, build_model

    args = {"width": 4, "depth": 2, "time_steps": 2, "in_channels": 1, "size": 28}
    spec = ModelSpec(name="conv-snn", args=args)
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("untrained") / "model.safetensors"
    metadata = make_metadata("train", model=spec, data=DataSpec(name="fashion-mnist-mini"))
    write_safetensors(path, build_model(spec).state_dict(), metadata)
    return path
