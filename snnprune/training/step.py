"""One step of training, and what is refused or told where it cannot be taken."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.checkpoint.checkpoint import is_finite
from snnprune.data.batches import describe_batch, iter_tensors, require_labels
from snnprune.distributed.ranks import ALONE, BatchPart, Ranks
from snnprune.distributed.whole_batch import ReplicatedNetwork, synchronise_batchnorms
from snnprune.errors import InputError, NonFiniteError
from snnprune.graph.forward import device_of
from snnprune.graph.libraries import use_plain_operations
from snnprune.graph.network import Network
from snnprune.masks import Masks
from snnprune.measure.evaluation import check_labels
from snnprune.recipe.sections import TrainingSection
from snnprune.training.optimization import (
    LabelLoss,
    Objective,
    build_optimizer,
    compute_learning_rate,
    optimizer_tensors,
    restore_optimizer,
    use_precision,
)
from snnprune.training.runs.state import read_count, require_alike, require_names
from snnprune.training.weights import MaskKeeper, WeightAverage

MAX_SKIPPED = 50  # the scale halves each time: by then no number fits


class Trainer:
    """A network, its optimizer and how far it is.

    `step` is the number of steps done, `batches` that of batches met: more, where fp16 overflowed.
    """

    def __init__(
        self,
        network: Network,
        training: TrainingSection,
        steps_per_epoch: int,
        *,
        objective: Objective | None = None,
        first_step: int = 0,
        ranks: Ranks = ALONE,
    ) -> None:
        """`first_step` is where in the schedule of `training` the first step lies.

        Several `ranks` have the same network and are given the same batches; each runs its part,
        and all take the same step.
        """
        self.network = network
        self.module = module = network.module
        self.training = training
        self.steps_per_epoch = steps_per_epoch
        self.objective = objective or LabelLoss(training)
        self.ranks = ranks
        self.replicated: ReplicatedNetwork | None = None  # made of the first batch
        self.logits = _make_logits_function(network)
        self.step, self.batches, self.skipped, self.first_step = 0, 0, 0, first_step
        self.device = next(module.parameters()).device.type
        if training.precision == "fp16" and self.device == "cpu":
            raise InputError("fp16 needs a GPU", field="training.precision", hint="choose bf16")
        if training.channels_last:
            _lay_channels_last(module)
        self.masking = MaskKeeper(module)
        self.average = WeightAverage(module, training.ema)
        self.optimizer = build_optimizer(module, training)
        self.scaler = torch.amp.GradScaler(self.device, enabled=training.precision == "fp16")

    def train_on(self, x: Any, y: Tensor) -> tuple[float, int]:
        """Take one step; the mean loss of the batch in nats and how many it got right.

        Raises:
            InputError: its labels are not as many as its samples.
            NonFiniteError: the loss is NaN or infinite; no weight has been changed by it.
        """
        require_labels(x, y, field="data.name")
        self._set_learning_rate()
        self.optimizer.zero_grad(set_to_none=True)
        with self.masking.apply_passing(), refuse_single_samples():
            found = self._compute_gradients(self._parts(x, y))
        loss, correct = self.ranks.total(found)
        if not math.isfinite(loss):
            raise self._not_finite_error(loss, x, y)
        self.batches += 1
        self._descend()
        return loss, int(correct)

    def hold(self, held: Masks, passing: Masks | None = None) -> None:
        """Take these masks from now on: nothing remembers what `held` prunes, nor averages it."""
        self.masking.set(held, passing)
        self.masking.enforce(self.optimizer)
        self.masking.clear(self.average.tensors)

    @property
    def learning_rate(self) -> float:
        """The rate of the last step that was done."""
        return self._compute_rate(max(self.step - 1, 0))

    @contextmanager
    def use_kept_weights(self) -> Iterator[None]:
        """In the block the weights are what is measured and kept: averaged and masked."""
        with self.average.use_averages(), self.masking.apply_passing():
            yield

    def position(self) -> dict[str, Any]:
        """What a state says of it beside the tensors."""
        return {
            "step": self.step,
            "batches": self.batches,
            "skipped": self.skipped,
            "scaler": self.scaler.state_dict(),
        }

    def groups(self) -> dict[str, Mapping[str, Tensor]]:
        """The tensors of a state: the model's and the optimizer's own, not copies."""
        return {
            "model": self.module.state_dict(),
            "optimizer": optimizer_tensors(self.optimizer, self.module),
            "average": self.average.tensors,
            **self.masking.groups(),
        }

    def restore(
        self, position: Mapping[str, Any], groups: Mapping[str, Mapping[str, Tensor]]
    ) -> None:
        """Take back what `position` and `groups` gave; the trainer is fresh.

        Raises:
            LookupError, RuntimeError, TypeError, ValueError: they are not of this network.
        """
        require_alike(groups["model"], self.module.state_dict())
        self.module.load_state_dict(groups["model"])
        restore_optimizer(self.optimizer, self.module, groups.get("optimizer", {}))
        self.average.restore(groups.get("average", {}))
        self.masking.restore(groups)
        require_names(position["scaler"], self.scaler.state_dict())
        self.scaler.load_state_dict(position["scaler"])
        self.batches = read_count(position, "batches")
        self.step = read_count(position, "step", most=self.batches)
        self.skipped = read_count(position, "skipped", most=MAX_SKIPPED)

    def _parts(self, x: Any, y: Tensor) -> list[BatchPart]:
        """This rank's part of each piece of a batch, with its share of the whole batch.

        So all ranks have as many, and a BatchNorm sees the pieces that one process would see.
        """
        found = [
            (self.ranks.part(*piece, along=self.network.sample_axis), len(piece[1]) / len(y))
            for piece in split_batch(x, y, self.training.accumulate, along=self.network.sample_axis)
        ]
        return [replace(part, share=part.share * of_batch) for part, of_batch in found]

    def _compute_gradients(self, parts: list[BatchPart]) -> tuple[float, int]:
        """Add up the gradients of all parts; this rank's part of loss and right answers."""
        if self.replicated is None:
            x, samples = parts[0].x, len(parts[0].y)
            with synchronise_batchnorms(self.ranks, counts=parts[0].counts):
                self.replicated = ReplicatedNetwork(
                    self.module, self.logits, self.ranks, x, samples
                )
        loss, correct = 0.0, 0
        for number, part in enumerate(parts, start=1):
            alone = nullcontext() if number == len(parts) else self.replicated.apart()
            with alone, synchronise_batchnorms(self.ranks, counts=part.counts):
                of_piece, right = self._backward(part.x, part.y, part.share)
            loss, correct = loss + of_piece, correct + right * part.counts
        return loss, correct

    def _backward(self, x: Any, y: Tensor, share: float) -> tuple[float, int]:
        """Add the gradient of a piece that is `share` of the whole batch; its part of the loss."""
        assert self.replicated is not None
        if self.training.channels_last and isinstance(x, Tensor) and x.dim() == 4:
            x = x.contiguous(memory_format=torch.channels_last)
        with use_precision(self.training, self.device):
            steps = self.replicated(x, len(y))
        y = check_labels(y, steps[0], field="data.name")  # on a GPU torch would only abort
        loss = self.objective(steps.float(), x, y) * share
        with refuse_state_leak():
            self.replicated.backward(self.scaler.scale(loss))
        return float(loss.detach()), int((steps.detach().sum(0).argmax(1) == y).sum())

    def _descend(self) -> None:
        self.masking.clear_gradients()
        if self.training.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.training.clip_norm)
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.get_scale() < scale:  # fp16 overflowed, and the optimizer was not stepped
            self._count_skipped()
            return
        self.step, self.skipped = self.step + 1, 0
        self.masking.enforce(self.optimizer)
        self.average.update()

    def require_stepped(self) -> None:
        """Refuse weights that no step was taken with.

        Raises:
            NonFiniteError: the gradient of every batch overflowed in fp16.
        """
        if self.batches and not self.step:
            raise NonFiniteError(
                f"all {self.batches} steps overflowed in fp16",
                field="training.precision",
                hint="choose bf16 or off",
            )

    def _not_finite_error(self, loss: float, x: Any, y: Tensor) -> NonFiniteError:
        """The error, with what is not finite first on any rank."""
        mine = find_first_nonfinite(self.module, lambda: self.logits(x, len(y)), x)
        culprit = next(filter(None, self.ranks.gather(mine)), None)
        return NonFiniteError(
            f"loss is {loss}: {culprit}" if culprit else f"loss is {loss}",
            field="training",
            hint="lower the learning rate or set clip_norm",
        )

    def _count_skipped(self) -> None:
        self.skipped += 1
        if self.skipped >= MAX_SKIPPED:
            raise NonFiniteError(
                f"{self.skipped} steps in a row overflowed in fp16",
                field="training.precision",
                hint="choose bf16 or off",
            )

    def _compute_rate(self, step: int) -> float:
        return compute_learning_rate(self.training, self.first_step + step, self.steps_per_epoch)

    def _set_learning_rate(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self._compute_rate(self.step)


def _make_logits_function(network: Network) -> Callable[[Any, int], Tensor]:
    """From x and the number of samples to logits (T, N, classes), from rest."""
    module, read = network.module, network.new_reader()

    def logits(x: Any, samples: int) -> Tensor:
        network.reset()
        # the kernels of neuron libraries are for GPUs
        with use_plain_operations(module) if device_of(module).type == "cpu" else nullcontext():
            return read(network.run(x), samples)

    return logits


def _lay_channels_last(module: nn.Module) -> None:
    """The weights of pictures alone: of volumes or anything else torch would refuse it."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def require_finite(module: nn.Module, epoch: int) -> None:
    """Refuse weights and statistics that an infinite gradient has spoilt.

    Raises:
        NonFiniteError: one of them is NaN or infinite; the first is named.
    """
    for key, tensor in module.state_dict().items():
        if not _is_finite(tensor):
            raise NonFiniteError(
                f"{key} is not finite after epoch {epoch + 1}",
                field="training",
                hint="lower the learning rate or set clip_norm",
            )


EVENTS = 5  # dimensions of (T, N, C, H, W)


def split_batch(
    x: Any, y: Tensor, count: int, *, along: int | None = None
) -> Iterator[tuple[Any, Tensor]]:
    """The batch in `count` pieces, or in as many as it has samples if these are fewer.

    Samples lie along the dimension `along`, or without it along the one that is as long as `y`:
    events (T, N, ...) have time first.

    Raises:
        InputError: the batch is no single tensor, or events have as many steps as samples, so that
            it cannot be seen which is which.
    """
    count = min(count, len(y))
    if not isinstance(x, Tensor):
        yield _require_one_piece(x, count), y
        return
    unsure = along is None and x.dim() == EVENTS and x.shape[0] == x.shape[1]
    if count > 1 and unsure:
        raise InputError(
            f"a batch of shape {tuple(x.shape)} has as many time steps as samples",
            field="training.accumulate",
            hint="choose another batch size, or 1 piece",
        )
    if along is None:
        along = 0 if len(x) == len(y) else 1
    yield from zip(x.tensor_split(count, along), y.tensor_split(count), strict=True)


def _require_one_piece(batch: Any, count: int) -> Any:
    if count > 1:
        raise InputError(
            f"{describe_batch(batch)} cannot be cut",
            field="training.accumulate",
            hint="let the loader give smaller batches, and take 1 piece",
        )
    return batch


SAID_BY_TORCH = "backward through the graph a second time"
SINGLE = ("Expected more than 1 value per channel", "a batch of one value per channel")


@contextlib.contextmanager
def refuse_state_leak() -> Iterator[None]:
    """In the block `backward` must not reach into the batch before.

    Raises:
        InputError: it does: the network's own neurons were not at rest when the batch began.
    """
    try:
        yield
    except RuntimeError as error:
        if SAID_BY_TORCH not in str(error):
            raise
        raise InputError(
            "its neurons keep their state from one batch to the next",
            field="model.name",
            hint="begin its forward by resetting them, or name a function that does: model.forward",
        ) from error


@contextlib.contextmanager
def refuse_single_samples() -> Iterator[None]:
    """In the block a BatchNorm must have more than one value to normalise.

    Raises:
        InputError: it has one, as of the only sample of a last batch.
    """
    try:
        yield
    except (ValueError, InputError) as error:
        if not any(said in str(error) for said in SINGLE):
            raise
        raise InputError(
            "a batch of one sample has no variance, by which its BatchNorm normalises",
            field="data.name",
            hint="leave a last batch of one out, as a DataLoader does with drop_last=True, or "
            "choose another training.batch_size",
        ) from error


def find_first_nonfinite(module: nn.Module, run: Callable[[], object], x: Any) -> str | None:
    """What is not finite first: the batch `x`, a weight, or the output of a layer in `run`.

    None where all of them are, and the loss alone overflowed.
    """
    if not all(map(_is_finite, iter_tensors(x))):
        return "the batch itself is not finite"
    for key, parameter in module.named_parameters():
        if not _is_finite(parameter):
            return f"{key} is not finite"
    with _record_nonfinite(module) as found, torch.no_grad(), contextlib.suppress(Exception):
        run()  # that a loss is not finite is told whatever happens here
    return f"the output of {found[0]} is not finite" if found else None


@contextlib.contextmanager
def _record_nonfinite(module: nn.Module) -> Iterator[list[str]]:
    """The names of layers whose output was not finite in the block, in the order of their calls."""
    found: list[str] = []
    with contextlib.ExitStack() as stack, _use_eval_mode(module):
        for name, layer in module.named_modules():
            if not list(layer.children()):
                handle = layer.register_forward_hook(
                    _make_nonfinite_hook(name or "the network", found)
                )
                stack.callback(handle.remove)
        yield found


def _make_nonfinite_hook(name: str, found: list[str]) -> Callable[..., None]:
    def look(_: nn.Module, __: object, output: object) -> None:
        if not all(map(_is_finite, iter_tensors(output))):
            found.append(name)

    return look


@contextlib.contextmanager
def _use_eval_mode(module: nn.Module) -> Iterator[None]:
    """In the block nothing is drawn, and no statistic of a batch is taken."""
    before = module.training
    module.eval()
    try:
        yield
    finally:
        module.train(before)


def _is_finite(tensor: Tensor) -> bool:
    return bool(is_finite(tensor.detach()).all())
