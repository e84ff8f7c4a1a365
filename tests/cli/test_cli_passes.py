"""How often a command runs the network over its images, as docs/scaling.md says."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from multiply_adds import CountingOperations
from torch.utils.flop_counter import flop_registry

from snnprune.measure import second_moments

Run = Callable[..., subprocess.CompletedProcess[str]]
aten = torch.ops.aten
IMAGES, BATCH = 64, 32
TRACED, TUNED = 2, 64
"""Images that tell how the network is made, and those of a step of tuning."""
ENCODER, BLOCK = 28 * 28 * 9 * 4, 2 * 14 * 14 * 9 * 4 * 8
PASS = ENCODER + BLOCK
"""Multiply-adds of an image of the checkpoint `untrained`: T = 2, the same image at each step."""
STEP = 3 * PASS - ENCODER
"""Of a forward and a backward pass; no gradient of the image is asked for."""


CONVOLUTIONS = {kind: flop_registry[kind] for kind in (aten.convolution, aten.convolution_backward)}


@pytest.fixture
def count(untrained: Path, run: Run, tmp_path: Path) -> Callable[..., int]:
    """Multiply-adds of a command on the checkpoint, beside those of tracing it."""

    def count_command(command: str, *flags: object) -> int:
        out = ("-o", tmp_path / f"{command}.safetensors")
        images = ("--samples", IMAGES, "--batch-size", BATCH, "--device", "cpu")
        with CountingOperations(CONVOLUTIONS) as seen:
            done = run(command, untrained, *out, *images, *flags)
        assert done.returncode == 0, done.stderr
        return seen.done - TRACED * PASS

    return count_command


def test_calibrate_runs_each_image_once(count: Callable[..., int]) -> None:
    assert count("calibrate") == IMAGES * PASS


@pytest.mark.many(3)
@pytest.mark.parametrize(
    ("flags", "passes"),
    [
        (("--criterion", "magnitude", "--repair", "none"), 0),
        (("--criterion", "magnitude", "--repair", "bn"), 2),
        (("--criterion", "sf", "--repair", "bn"), 3),
        (("--criterion", "sf-obs", "--repair", "bn"), 4.5),
        (("--criterion", "magnitude", "--repair", "lsq"), 4.5),
        (("--no-tune",), 5.5),
    ],
    ids=lambda value: "_".join(value) if isinstance(value, tuple) else "",
)
def test_prune_runs_the_images_as_often_as_the_docs_say(
    flags: tuple[str, ...],
    passes: float,
    count: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The half is the first of two batches, on which it is seen how the layers are used."""
    monkeypatch.setattr(second_moments, "WORK", 0.0)  # no elimination, which takes no pass
    found = count("prune", "--sparsity", 0.8, "--no-eval", *flags)
    assert found == pytest.approx(passes * IMAGES * PASS, rel=0.01)


def test_a_step_of_tuning_is_a_forward_and_a_backward_pass(count: Callable[..., int]) -> None:
    def tune(steps: int) -> int:
        flags = ("--sparsity", 0.8, "--no-eval", "--tune-images", 128, "--force")
        return count("prune", *flags, "--tune-steps", steps)

    assert tune(12) - tune(4) == 8 * TUNED * STEP
