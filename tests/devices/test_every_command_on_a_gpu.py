"""Every command on a pretended GPU: it takes what a GPU takes, and says what it says on a CPU."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file
from typed_commands import commands, for_gpus

from snnprune.cli.commands import make_app

HERE = Path(__file__).parent
LIMIT = 600  # seconds, where other suites run beside
OF_THE_DEVICE = frozenset({"device", "cost", "dry_run"})
"""Keys of reports: its name, and what the work took on it."""
READ_BY = "eval a.safetensors --data tensors:images.safetensors --readout"
FAULTS = {
    "two_devices": "Expected all tensors to be on the same device",
    "other_generator": "Expected a 'cuda' generator",
    "in_numpy": "can't convert cuda:0 device type tensor to numpy",
    "for_cpus_alone": "could not run 'aten::histogram'",
}


def ran(folder: Path, *libraries: str) -> dict[str, dict[str, Any]]:
    """What each command said on each device; in a process, which keeps the GPU for good."""
    done = subprocess.run(
        [sys.executable, HERE / "every_command.py", folder, *libraries],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "said.json").read_text("utf-8"))
    return {words: {device: found[device][words] for device in found} for words in found["cpu"]}


def less_the_device(report: Any) -> Any:
    """A report less what may differ."""
    return {key: value for key, value in report.items() if key not in OF_THE_DEVICE}


def with_a_device(command: Any, *names: str) -> Iterator[str]:
    """The commands that may be told where to work, as they are typed."""
    for name, sub in getattr(command, "commands", {}).items():
        yield from with_a_device(sub, *names, name)
    if any("--device" in one.opts for one in command.params):
        yield " ".join(names)


def assert_same_files(folder: Path) -> None:
    """Both devices left the same files, and in each of tensors the same."""
    files = [
        {file.relative_to(folder / device) for file in (folder / device).rglob("*")}
        for device in ("cpu", "cuda")
    ]
    assert files[0] == files[1]
    tensors = [file for file in files[0] if file.suffix == ".safetensors"]
    assert len(tensors) > 20
    for file in tensors:
        cpu, gpu = (load_file(folder / device / file) for device in ("cpu", "cuda"))
        assert cpu.keys() == gpu.keys()
        assert all(cpu[key].equal(gpu[key]) for key in cpu), file


def assert_refused(said: dict[str, Any], words: str) -> None:
    """A planted fault is none on a CPU."""
    assert said["cpu"]["code"] == 0, said["cpu"]["errors"]
    assert said["cuda"]["code"] == 3
    assert words in said["cuda"]["errors"]


def assert_same(said: dict[str, Any]) -> None:
    """A command did the same on both devices."""
    for device, name in (("cpu", "cpu (1 threads)"), ("cuda", "pretended GPU")):
        assert said[device]["code"] == 0, said[device]["errors"]
        assert said[device]["report"]["device"] == name
    assert less_the_device(said["cpu"]["report"]) == less_the_device(said["cuda"]["report"])


@pytest.mark.slow
def test_every_command_does_on_a_gpu_what_it_does_on_a_cpu(tmp_path: Path) -> None:
    said = ran(tmp_path)
    for name, words in FAULTS.items():
        both = said.pop(f"{READ_BY} faults.py:{name}")
        if name != "for_cpus_alone" or torch.backends.cuda.is_built():  # else torch does not know
            assert_refused(both, words)
    for words in map(" ".join, for_gpus()):
        assert (said[words]["cpu"]["code"], said.pop(words)["cuda"]["code"]) == (3, 0)
    for both in said.values():
        assert_same(both)
    assert_same_files(tmp_path)


@pytest.mark.slow
def test_networks_of_other_libraries_take_a_gpu_too(tmp_path: Path) -> None:
    # no more than that: on a GPU SpikingJelly sums up in another order
    for words, both in ran(tmp_path, "libraries").items():
        for said in both.values():
            assert said["code"] == 0, (words, said["errors"])


def test_every_command_that_takes_a_device_is_among_them() -> None:
    typed = {" ".join(words).partition(" a.safetensors")[0] for words in commands()}
    for command in with_a_device(typer.main.get_command(make_app())):
        assert any(words.startswith(command) for words in typed), command
