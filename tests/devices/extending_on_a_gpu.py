"""Run the examples of docs/extending.md, in this folder, with a network on a pretended GPU.

That is the notebook, and then the page's criterion, allocation and repair.
"""

from pathlib import Path
from unittest import mock

import torch
from doc_blocks import blocks_of
from pretended_gpu import pretend

from snnprune import models
from snnprune.pruning.oneshot import OneShot, Plan

PAGE = "extending.md"
OWN = Plan(
    criterion="my_criteria.py:rate_weighted",
    allocation="my_allocations.py:first_layer_dense",
    repair="my_repairs.py:as_strong_as_before",
)


def run_notebook() -> OneShot:
    """The page's first block of Python, whose network is on the GPU; its `work`."""
    build = models.build_model
    on_gpu = mock.patch.object(models, "build_model", lambda spec: build(spec).to("cuda"))
    notebook = next(block for block in blocks_of(PAGE) if block.language == "python")
    with on_gpu:
        variables = notebook.run_as_python()
    work: OneShot = variables["work"]
    return work


def save_files() -> None:
    """The files of the page."""
    for block in blocks_of(PAGE):
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")


def main() -> None:
    """Run all of it."""
    pretend()
    work = run_notebook()
    assert work.network is not None
    assert {one.device for one in work.network.module.parameters()} == {torch.device("cuda", 0)}
    save_files()
    cut = work.prune(OWN, 0.5)
    kept = sum(int(mask.sum()) for mask in cut.masks.values())
    assert kept * 2 == sum(mask.numel() for mask in cut.masks.values())


if __name__ == "__main__":
    main()
