"""Fixtures that several test files share."""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from jsonschema import Draft202012Validator

from snnprune.cli import app
from snnprune.cli.failures import run as run_app
from snnprune.report.schema import text as schema_text

# one thread each: workers that wait for each other's threads are many times slower
os.environ.setdefault("OMP_NUM_THREADS", "1")

# the first call into torch alone takes longer than hypothesis allows an example
settings.register_profile("snnprune", deadline=None)
settings.load_profile("snnprune")

# its assertions, in classes that test files subclass, tell both sides as theirs do
pytest.register_assert_rewrite("behaviour")

Done = subprocess.CompletedProcess[str]


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
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_app(app, [str(argument) for argument in arguments])
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


def assert_valid(report: dict[str, Any]) -> None:
    """A report is one of those that the JSON Schema knows."""
    validator = _validators()
    wanted = [one for one in validator if _is_about(one, report)]
    assert wanted, f"no schema for {report.get('command')}"
    faults = [list(one.iter_errors(report)) for one in wanted]
    best = min(faults, key=len)
    assert not best, "\n".join(f"{fault.json_path}: {fault.message}"[:300] for fault in best)


@functools.cache
def _validators() -> list[Draft202012Validator]:
    """One for each kind of report, so that a fault names its key."""
    schema = json.loads(schema_text())
    kinds = schema.pop("anyOf")
    return [Draft202012Validator({**schema, **kind}) for kind in kinds]


def _is_about(validator: Draft202012Validator, report: dict[str, Any]) -> bool:
    schema: Any = validator.schema
    name = schema["$ref"].rpartition("/")[2]
    told = schema["$defs"][name]["properties"].get("command", {})
    return report.get("command") in (told.get("const"), *told.get("enum", ()))


@pytest.fixture(scope="session")
def process() -> Callable[..., Done]:
    """`process("inspect", path)`: the tool in a process of its own."""
    return in_a_process


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`run("inspect", path)`: the same in this process, for the many quick cases."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return in_this_process


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small network trained by the tool on bundled images."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    done = in_a_process("train", "--recipe", "smoke", "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def model_file(trained: Path) -> Path:
    """Its checkpoint."""
    return trained / "model.safetensors"


@pytest.fixture(scope="session")
def as_json() -> Callable[[Done], Any]:
    """What a command printed with --json; stdout must hold one object and nothing else."""
    return lambda done: json.loads(done.stdout)
