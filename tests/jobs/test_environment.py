"""`snnprune env` says without torch what it says with it."""

import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from snnprune.jobs import environment
from snnprune.models.lif.native import find_native_path
from snnprune.runtime import find_native_folder

PROBE = """
import json, sys
{before}
from snnprune.jobs.environment import collect_environment
print(json.dumps(collect_environment()), "torch" in sys.modules)
"""


def collected(cache: Path, before: str = "", **variables: str) -> tuple[dict[str, str], bool]:
    """What a process of its own says, and whether torch was imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(before=before)],
        env={**os.environ, "SNNPRUNE_CACHE": str(cache), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    said, _, imported = done.stdout.strip().rpartition(" ")
    return json.loads(said), imported == "True"


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """How often torch is asked, in a cache of its own and as if nobody had imported torch."""
    if environment.may_have_gpu() or isinstance(find_native_path(), str):
        pytest.skip("torch is always asked here")
    calls: list[None] = []

    def ask() -> dict[str, str]:
        calls.append(None)
        return {"device": f"cpu ({len(calls)} threads)", "cuda": "none", "lif": "native (c++)"}

    monkeypatch.setenv("SNNPRUNE_CACHE", str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(environment, "ask_torch", ask)
    return calls


def device() -> str:
    return environment.collect_environment()["device"]


def test_what_torch_said_is_said_again_without_it(asked: list[None]) -> None:
    assert [device() for _ in range(3)] == ["cpu (1 threads)"] * 3
    assert len(asked) == 1


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "ATEN_CPU_CAPABILITY", "LD_PRELOAD"])
def test_torch_is_asked_again_where_a_variable_is_another(
    name: str, asked: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    device()
    monkeypatch.setenv(name, "7")
    assert device() == "cpu (2 threads)"


def test_torch_is_asked_again_on_other_cores_and_with_another_torch_compiler_and_library(
    asked: list[None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device()
    other = tmp_path / "other-c++"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o700)
    with monkeypatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {99}, raising=False)
        assert device() == "cpu (2 threads)"
    with monkeypatch.context() as patch:
        patch.setenv("CXX", str(other))
        assert device() == "cpu (3 threads)"
    (find_native_folder() / "lif-new.so").touch()
    assert device() == "cpu (4 threads)"
    for name in ("__init__.py", "version.py"):
        (tmp_path / name).touch()
    spec = ModuleSpec("torch", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(environment, "find_spec", lambda _: spec)
    assert device() == "cpu (5 threads)"
    assert device() == "cpu (5 threads)"


@pytest.mark.parametrize("kept", ["", "[]", "{", '{"of": 1}', '{"of": "x", "said": {}}'])
def test_what_cannot_be_believed_is_asked_anew(kept: str, asked: list[None]) -> None:
    device()
    (find_native_folder() / environment.KEPT).write_text(kept)
    assert device() == "cpu (2 threads)"


def test_a_folder_of_others_is_not_believed(asked: list[None]) -> None:
    device()
    find_native_folder().chmod(0o777)
    assert [device(), device()] == ["cpu (2 threads)", "cpu (3 threads)"]


def test_torch_is_asked_where_a_gpu_may_be_and_where_a_path_is_chosen(
    asked: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    device()
    with monkeypatch.context() as patch:
        patch.setattr(environment, "may_have_gpu", lambda: True)
        assert device() == "cpu (2 threads)"
    monkeypatch.setenv("SNNPRUNE_LIF", "plain")
    assert device() == "cpu (3 threads)"


def test_why_there_is_no_kernel_is_not_remembered(
    asked: list[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"device": "cpu", "cuda": "none", "lif": "plain (c++ took more than 30 s)"}
    monkeypatch.setattr(environment, "ask_torch", lambda: said)
    device()
    assert not (find_native_folder() / environment.KEPT).exists()


def test_a_driver_that_can_be_loaded_may_have_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "DRIVERS", ("no-such-library.so.1", None))  # None: ourselves
    assert environment.may_have_gpu()


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{"OMP_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": ""}], ids=str)
def test_it_equals_what_torch_says_in_a_process_of_its_own(
    variables: dict[str, str], tmp_path: Path
) -> None:
    if environment.may_have_gpu() or isinstance(find_native_path(), str):
        pytest.skip("torch is always asked here")
    first, imported = collected(tmp_path, **variables)
    again, imported_again = collected(tmp_path, **variables)
    with_torch, _ = collected(tmp_path, "import torch", **variables)
    assert list(first.items()) == list(again.items()) == list(with_torch.items())
    assert (imported, imported_again) == (True, False)
