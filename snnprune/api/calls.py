"""A command as one call: a network of one's own process in, its result out.

Each does what the command of that name does on a checkpoint of the network, to the bit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from snnprune.api.given import copy_network, install_tensors, take_batches
from snnprune.api.options import read_options, read_sparsity, speak_python
from snnprune.api.progress import choose_progress
from snnprune.api.results import EvaluationResult, PruningResult, ScoringResult
from snnprune.graph.state import unwrap
from snnprune.jobs.evaluate import evaluate_checkpoint
from snnprune.jobs.options import EvaluateOptions, ScoreOptions
from snnprune.jobs.prune.filing import FinishedPruning
from snnprune.jobs.prune.options import PruneOptions
from snnprune.jobs.prune.prune import prune_given
from snnprune.jobs.score import score_checkpoint
from snnprune.report.pages import require_room, write_report
from snnprune.runtime import Progress


def prune_model(
    model: nn.Module,
    batches: Any,
    *,
    sparsity: float | None = None,
    copy: bool = True,
    progress: bool | Progress | None = None,
    **options: Any,
) -> PruningResult:
    """Prune a network, as `snnprune prune` does a checkpoint of it: same masks, same tensors.

        result = snnprune.prune_model(model, loader, sparsity=0.8)
        result                           # in a notebook: tables
        result.model                     # the pruned network
        result.save("pruned.safetensors")

    By default the network that is given stays as it is, so that a cell may be run again. Whatever
    goes wrong, and where a gate is not met, it is as it was in any case.

    Args:
        model: any network of spiking neurons; inside DataParallel or `torch.compile` it is that
            inside. It is run in eval mode, where it lies.
        batches: x or (x, y) as the network takes them: a DataLoader, a list, a function that gives
            such, a dict of these by `train`, `validation` and `test`, or the name of a data set.
            Where none are for measuring, a tenth is set aside, as the command does.
        sparsity: share of the weights to prune, in [0, 1). It may be left out where
            `max_accuracy_drop`, `target_accuracy`, `layers`, `recipe` or a `structure` such as
            "2:4" says how much.
        copy: whether a pruned copy is given back; else `model` itself is pruned, its parameters
            staying the objects that they are.
        progress: True, False, or an object that is told; by default bars where somebody sees them.
        options: those of the command, by the names of its flags: `criterion`, `allocation`,
            `repair`, `effort`, `structure`, `bits`, `max_accuracy_drop`, `min_accuracy`, `exclude`,
            `samples`, `seed`, ...; `forward` and `readout` may be functions; `evaluate=False` is
            `--no-eval`, and `report` a folder for pages.

    Raises:
        UsageError: an option is unknown or wrong.
        InputError: the network or the batches cannot be used.
        GateError: a gate is not met; its `result` is what came of it.
        OutputError: `report` is in the way.
    """
    with _call():
        wanted = () if sparsity is None else (read_sparsity(sparsity),)
        chosen = _read(PruneOptions, model, batches, options, sparsities=wanted)
        outcome, finished = prune_given(chosen, choose_progress(progress))
        _write_pages(chosen.report, outcome.report)
        error, in_place = outcome.error, not copy and outcome.error is None
        held = model if in_place else copy_network(unwrap(model))
        result = _make_result(held, finished, outcome.report)
        if error is not None:
            error.result = result
            raise error
        return result


def score_model(
    model: nn.Module, batches: Any, *, progress: bool | Progress | None = None, **options: Any
) -> ScoringResult:
    """Score every weight of a network, larger = keep, as `snnprune score` does.

    `model`, `batches` and `progress` are as for `prune_model`; `options` those of the command, as
    `criterion`, `samples` and `out`, a file for the scores.

    Raises:
        SnnpruneError: see `prune_model`.
    """
    with _call():
        chosen = _read(ScoreOptions, model, batches, options)
        found = score_checkpoint(chosen, choose_progress(progress))
        _write_pages(chosen.report, found.report)
        return ScoringResult.of(found)


def evaluate_model(
    model: nn.Module, batches: Any, *, progress: bool | Progress | None = None, **options: Any
) -> EvaluationResult:
    """Measure accuracy, firing and synaptic operations of a network, as `snnprune eval` does.

    `model`, `batches` and `progress` are as for `prune_model`; of batches for several uses those of
    the test count, or of `split`. `options` are those of the command, as `limit` and `readout`.

    Raises:
        SnnpruneError: see `prune_model`.
    """
    with _call():
        chosen = _read(EvaluateOptions, model, batches, options)
        found = evaluate_checkpoint(chosen, choose_progress(progress))
        _write_pages(chosen.report, found.report)
        return EvaluationResult.of(found)


@contextlib.contextmanager
def _call() -> Iterator[None]:
    """What a caller has set of autograd is not ours, and what we draw at random is not theirs."""
    drawn = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with (
        speak_python(),
        torch.random.fork_rng(devices=drawn),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        yield


T = TypeVar("T", PruneOptions, ScoreOptions, EvaluateOptions)


def _read(kind: type[T], model: Any, batches: Any, values: Mapping[str, Any], **read: Any) -> T:
    """The options of a call, and room for its pages."""
    options = read_options(kind, model, take_batches(batches), values, **read)
    if options.report is not None:
        require_room(options.report, force=options.force)
    return options


def _write_pages(folder: Path | None, report: Mapping[str, Any]) -> None:
    if folder is not None:
        write_report(folder, report)


def _make_result(
    model: nn.Module, finished: FinishedPruning, report: dict[str, Any]
) -> PruningResult:
    """The result, with what was made put into `model`."""
    made = finished.made.small
    tensors = (made or finished.made).tensors
    install_tensors(unwrap(model), tensors, made.shapes if made else None)
    return PruningResult(
        model=model,
        masks={key: mask.cpu() for key, mask in finished.masks.items()},
        integers=finished.list_integers(tensors),
        report=report,
        finished=finished,
    )
