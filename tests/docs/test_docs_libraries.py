"""The examples of docs/libraries.md run from top to bottom."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from doc_blocks import blocks_of

Run = Callable[..., subprocess.CompletedProcess[str]]
PAGE = "libraries.md"


def test_every_example_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    shown = []
    for block in blocks_of(PAGE):
        if block.file is not None:
            (tmp_path / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            block.run_as_python()
        elif "runnable" in block.marks:
            for line in block.text.replace("\\\n", " ").splitlines():
                done = run(*shlex.split(line)[1:])
                assert done.returncode == 0, f"{PAGE}:{block.line}: {done.stderr}"
                shown.append(done.stdout)
    inspected, spikingjelly, snntorch = shown
    assert "layers.6" in inspected  # the neuron that the second convolution drives
    assert "criterion sf (the network and its data are at hand)" in spikingjelly
    assert "accuracy" in spikingjelly
    assert "criterion sf" in snntorch
