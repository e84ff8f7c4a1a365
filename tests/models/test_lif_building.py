"""How the native library is compiled and kept, and what happens where that fails."""

import ctypes
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from snnprune import runtime
from snnprune.models.lif import native
from snnprune.models.lif.native import SOURCE, NativePath, find_native_path
from snnprune.runtime import UnavailableError, load_library


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if isinstance(found := find_native_path(), str):
        pytest.skip(f"no native path: {found}")
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("SNNPRUNE_CACHE", str(folder))
    return folder / "native"


def reason() -> str:
    with pytest.raises(UnavailableError) as caught:
        load_library(SOURCE)
    return str(caught.value)


def test_it_is_compiled_once_and_again_where_it_is_damaged(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # what is loaded may not be damaged
        patch.setattr(ctypes, "CDLL", str)
        load_library(SOURCE)
    (made,) = cache.iterdir()
    assert cache.stat().st_mode & 0o777 == 0o700
    whole = made.read_bytes()
    for damaged in (b"", whole[:1000], whole[:-1], b"\x00" + whole[1:]):
        made.write_bytes(damaged)
        assert not runtime._is_whole(made)
    assert NativePath(load_library(SOURCE)).compiler
    assert [*cache.iterdir()] == [made]
    monkeypatch.setattr(runtime, "_run", lambda words: pytest.fail("compiled again"))
    load_library(SOURCE)


def test_its_name_tells_source_flags_and_compiler_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("")
    other.write_text("longer")
    names = [
        runtime._describe([str(one)], (), b"source"),
        runtime._describe([str(one)], ("-O2",), b"source"),
        runtime._describe([str(one)], (), b"other source"),
        runtime._describe([str(other)], (), b"source"),
        runtime._describe([str(one), "-m32"], (), b"source"),
    ]
    assert len({*names}) == len(names)


@pytest.mark.slow
def test_several_processes_may_make_it_at_once(cache: Path) -> None:
    code = "from snnprune.models.lif import native; native.find_native_path().compiler"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    (made,) = cache.iterdir()
    assert runtime._is_whole(made)


@pytest.mark.slow
def test_a_compiler_without_openmp_makes_it_for_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrapper = tmp_path / "cxx"
    wrapper.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec c++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    assert not NativePath(load_library(SOURCE)).parallel


@pytest.mark.parametrize(
    ("compiler", "expected"),
    [
        ("no-such-compiler -O2", "no no-such-compiler"),
        ("c++ 'unclosed", "CXX: No closing quotation"),
        ("false", "false failed: exit code 1"),
        ("sh -c 'echo no room >&2; exit 3'", "sh failed: no room"),
    ],
)
def test_a_compiler_that_fails_is_told_of(
    compiler: str, expected: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", compiler)
    assert reason().endswith(expected)
    assert not cache.exists() or not [*cache.iterdir()]


def test_a_compiler_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "TIME_LIMIT", 0.1)
    monkeypatch.setenv("CXX", "sh -c 'exec sleep 60'")
    assert reason().endswith("sh took more than 0.1 s")


def test_a_cache_that_takes_no_files_is_told_of(cache: Path) -> None:
    cache.write_text("a file")
    assert reason().startswith(str(cache))


@pytest.mark.parametrize("mode", [0o770, 0o707])
def test_a_folder_that_others_write_to_is_not_used(cache: Path, mode: int) -> None:
    cache.mkdir()
    cache.chmod(mode)
    assert reason() == f"others may write to {cache}"


def test_a_folder_of_somebody_else_is_not_used(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(mode=0o700)
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    assert reason() == f"others may write to {cache}"


def test_what_cannot_be_loaded_is_told_of(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise OSError(f"{path}: no exec")

    monkeypatch.setattr(runtime, "_compile", lambda command, source, path: None)
    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert "no exec" in reason()


@pytest.mark.parametrize(("machine", "capability"), [("x86_64", "DEFAULT"), ("riscv64", "AVX2")])
def test_a_processor_without_the_instructions_of_torch_has_none(
    machine: str, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert reason() in ("torch runs without AVX2 here", "none for riscv64 processors")


def test_the_source_is_a_file_of_the_package() -> None:
    assert SOURCE.is_file()
    assert SOURCE.parent == Path(native.__file__).parent
