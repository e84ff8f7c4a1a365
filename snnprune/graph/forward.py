"""How a batch is run and its output read: the network's own way, or the user's."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from snnprune.data import DataSet
from snnprune.data.batches import (
    Pair,
    copy_batch,
    count_samples,
    describe_batch,
    guess_length,
    iter_tensors,
    read_pair,
    require_labels,
)
from snnprune.errors import InputError, error_class_for
from snnprune.graph.state import StateSnapshot, snapshot_attributes
from snnprune.plugins.names import (
    STEPS,
    is_own_function,
    parse_repeats,
    require_forward,
    require_readout,
)
from snnprune.plugins.user_code import guard_function, guard_user_code, is_reference, load_function

Forward = Callable[[nn.Module, Any], Any]
"""From a module and what is fed to it, a tensor or a whole batch, to the module's output."""


def call_module(module: nn.Module, x: Any) -> Any:
    """`module(x)`.

    Raises:
        InputError: x is no tensor.
    """
    return module(_require_tensor(x))


@dataclass(frozen=True, kw_only=True)
class CountedForward:
    """A way to run batches of which is known where their samples lie."""

    forward: Forward
    tensor: int = 0
    """Which of a batch's tensors has them."""
    axis: int
    always: bool = False
    """Whether those of a batch with labels lie there too."""
    field: str = "--forward"
    """What errors call it."""

    def __call__(self, module: nn.Module, x: Any) -> Any:
        return self.forward(module, x)

    def samples(self, x: Any, y: Tensor | None) -> int:
        """How many there are in a batch.

        Raises:
            InputError: its labels are not as many, where they would have to be.
        """
        held = list(iter_tensors(x))[self.tensor : self.tensor + 1]
        here = held[0].shape[self.axis] if held and held[0].dim() > self.axis else None
        if y is not None and self.always and len(y) != here:
            raise InputError(
                f"{describe_batch(x)} with {len(y)} labels has no time first, as (T, N, ...)",
                field=self.field,
                hint="turn it round in a function: file.py:function",
            )
        return count_samples(x, y) if y is not None or here is None else here


class SteppedForward:
    """Calls the module once for each time step, and stacks what it puts out as (T, N, ...).

    The libraries' neurons are at rest when a batch begins. What a module of the user's own keeps in
    attributes is put back behind each batch: in training nobody else does it.
    """

    def __init__(
        self, steps_of: Callable[[Tensor], Iterable[Tensor]], *, field: str = "--forward"
    ) -> None:
        """`steps_of` gives what is fed at each step, and `field` is what errors call it."""
        self.steps_of, self.field = steps_of, field
        self.rest: WeakKeyDictionary[nn.Module, StateSnapshot] = WeakKeyDictionary()

    def __call__(self, module: nn.Module, x: Any) -> Tensor:
        if module not in self.rest:
            self.rest[module] = snapshot_attributes(module)
        try:
            steps = self.steps_of(_require_tensor(x))
            return torch.stack([self._read_output(module(step)) for step in steps])
        finally:
            self.rest[module].restore()

    def _read_output(self, output: Any) -> Tensor:
        """That of a time step."""
        found = _select_output(output)
        if not isinstance(found, Tensor):
            raise InputError(
                f"the network puts out a {type(found).__name__} at a time step",
                field=self.field,
                hint="a function of yours may stack what counts: file.py:function",
            )
        return found


def load_forward(
    name: str | None,
    model: str | None,
    *,
    fields: tuple[str, str] = ("--forward", "--model"),
    function: Forward | None = None,
) -> Forward:
    """The way of that name, the user's own function or `call_module`; their failures are told as
    theirs.

    `model` is the name of the model, and `fields` what errors call the two. `function` is the
    user's own one, where it need not be looked for.

    Raises:
        UsageError: there is no such way, and its field is a flag.
        InputError: likewise, in a file; or the function cannot be had.
    """
    require_forward(name, field=fields[0])
    if name is not None and is_own_function(name):
        found = function or load_function(name, field=fields[0])
        return _guard_forward(found, name, field=fields[0])
    forward = _load_built_in(name, fields[0])
    if model is not None and is_reference(model):
        forward = _guard_forward(forward, model, field=fields[1])
    if name == STEPS:
        return CountedForward(forward=forward, axis=1, always=True, field=fields[0])
    return forward


def place_time_first(
    forward: Forward, name: str | None, data: DataSet | None, *, field: str = "--forward"
) -> Forward:
    """`forward`, of that `name`, with the word of `data` that its batches are (T, N, ...).

    A function of the user's is left as it is: it may turn them round.

    Raises:
        UsageError: it would repeat what has time steps of its own, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if data is None or not data.time_first or isinstance(forward, CountedForward):
        return forward
    if name is not None and is_own_function(name):
        return forward
    if parse_repeats(name or "") is not None:
        raise error_class_for(field)(
            f"{name} would repeat {data.name}, which has time steps of its own",
            field=field,
            hint=f"take {STEPS}, a call for each of them, or leave it out",
        )
    return CountedForward(forward=forward, axis=1, always=True, field=field)


def make_counted_forward(forward: Forward, x: Any, output: Any, reading: str | Reading) -> Forward:
    """`forward` for batches without labels, by its `output` for one of them, x.

    That tells where the samples lie if they are not where one looks first: time may come before
    them, and a whole batch has tensors of many shapes.
    """
    said = _guess_sample_counts(output, reading)
    if guess_length(x) in said or isinstance(forward, CountedForward):
        return forward
    held = list(iter_tensors(x))
    for count, axis, place in itertools.product(said, (0, 1), range(len(held))):
        if held[place].dim() > axis and held[place].shape[axis] == count:
            return CountedForward(forward=forward, tensor=place, axis=axis)
    return forward


def load_reading(
    readout: str, *, field: str = "--readout", function: Reading | None = None
) -> str | Reading:
    """The readout of that name, or the user's function, which may be given.

    Raises:
        UsageError: it is neither.
        InputError: the function cannot be had.
    """
    if is_reference(readout):
        found = function or load_function(readout, field=field)
        return guard_function(found, readout, field=field)
    require_readout(readout, field=field)
    return readout


def _load_built_in(name: str | None, field: str) -> Forward:
    count = parse_repeats(name or "")
    if count is not None:  # copies, since a module may work in place
        return SteppedForward(lambda x: (x.clone() for _ in range(count)), field=field)
    return SteppedForward(iter, field=field) if name == STEPS else call_module


def _guard_forward(function: Forward, reference: str, *, field: str) -> Forward:
    def run(module: nn.Module, x: Any) -> Any:
        what = f"{reference} on {describe_batch(x)}"
        with guard_user_code(what, field=field):
            return function(module, x)

    return run


def _require_tensor(x: Any) -> Tensor:
    if isinstance(x, Tensor):
        return x
    raise InputError(
        f"a batch is {describe_batch(x)}",
        field="--data",
        hint="give x or (x, y), or run it by a function of yours: --forward file.py:function",
    )


def _select_output(output: Any) -> Any:
    """What counts of several outputs, as spikes beside a membrane."""
    return _select_output(output[0]) if isinstance(output, tuple) and output else output


def find_scores(output: Any, reading: str | Reading) -> Tensor | None:
    """What counts of an output, (N, classes), (T, N, classes) or (N, T, classes); None if nothing
    does.
    """
    try:
        output = _select_output(output if isinstance(reading, str) else reading(output))
    except InputError:  # the user's function fails, which whoever needs it will tell
        return None
    if isinstance(output, list) and output and all(isinstance(one, Tensor) for one in output):
        alike = len({one.shape for one in output}) == 1
        output = torch.stack(output) if alike else output[0]
    return output if isinstance(output, Tensor) and output.dim() in (2, 3) else None


def _guess_sample_counts(output: Any, reading: str | Reading) -> tuple[int, ...]:
    """How many samples an output may be of, the likeliest first."""
    scores = find_scores(output, reading)
    if scores is None:
        return ()
    return (len(scores),) if scores.dim() == 2 else (scores.shape[1], len(scores))


Batch = Any
"""x, or x and its labels, as a DataLoader gives them; or whatever a way to run it takes."""


def feed_batches(batches: Iterable[Batch], module: nn.Module) -> Iterator[Pair]:
    """Each batch as (x, y), y None without labels, on the device of `module`.

    x is a copy: the data stay as they are whatever the module does to it.

    Raises:
        InputError: there is no tensor in a batch, or a value that is NaN or infinite; or its labels
            are not as many as its samples, which they were in the first batch.
    """
    device, fitting = device_of(module), False
    for number, batch in enumerate(batches, start=1):
        pair = batch if isinstance(batch, Pair) else read_pair(batch)
        if pair is None:
            raise InputError(
                f"a batch is a {type(batch).__name__}",
                field="--data",
                hint="give tensors x or pairs (x, y), such as a DataLoader does",
            )
        if not all(map(_is_finite, iter_tensors(pair.x))):
            raise InputError(
                f"batch {number} has NaN or infinity in it",
                field="--data",
                hint="no spike comes of NaN, so that every number would look right",
            )
        if pair.y is not None and isinstance(pair.x, Tensor):
            if fitting:
                require_labels(pair.x, pair.y)
            # else time and samples may lie in one dimension
            fitting = fitting or (number == 1 and len(pair.y) in pair.x.shape[:2])
        yield Pair(copy_batch(pair.x, device), None if pair.y is None else pair.y.to(device))


def require_as_many(output: Any, x: Any, y: Tensor | None, reading: str | Reading) -> None:
    """Refuse labels of a batch that are neither as many as its samples nor as its outputs.

    Raises:
        InputError: they are such.
    """
    scores = None if y is None else find_scores(output, reading)
    if y is not None and scores is not None and len(y) not in scores.shape[:-1]:
        require_labels(x, y)


@contextlib.contextmanager
def explain_label_errors(x: Any, y: Tensor | None) -> Iterator[None]:
    """Reading an output fails in the block where it is not of as many samples as there are labels.

    Raises:
        InputError: it did, and x is not of so many samples either: the labels are at fault.
    """
    try:
        yield
    except InputError as error:
        if error.field == "--readout" and y is not None:
            require_labels(x, y)
        raise


def _is_finite(x: Tensor) -> bool:
    return not x.is_floating_point() or bool(x.isfinite().all())


def device_of(module: nn.Module) -> torch.device:
    """Where its parameters are."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


Reading = Callable[[Any], Tensor]
"""From a network's raw output to floating scores (N, classes)."""

TIME_FIRST, SAMPLES_FIRST = "(T, N, classes)", "(N, T, classes)"
SAMPLE_AXIS = {TIME_FIRST: 1, SAMPLES_FIRST: 0}
LAYOUT_OF_AXIS = {axis: layout for layout, axis in SAMPLE_AXIS.items()}

EXPECTED = (
    "expected (N, classes), (T, N, classes), (N, T, classes) or a list over time of (N, classes); "
    "--readout file.py:function reads anything else"
)

READOUTS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "auto": lambda steps: steps,
    "sum": lambda steps: steps,
    "mean": lambda steps: steps.mean(0, keepdim=True),
    "last": lambda steps: steps[-1:],
}
"""From logits (T, N, classes) to those that count: the loss is their mean over time of the
cross-entropy, the scores are their sum over time (Kim et al. 2022)."""


class Readout:
    """How the outputs of a network are read."""

    def __init__(
        self,
        how: str | Reading = "auto",
        *,
        name: str | None = None,
        layout: str | None = None,
    ) -> None:
        """`how` is one of `READOUTS` or a function; `name` is what errors call the function.

        `layout` is that of outputs with time steps, where it is known before.

        Raises:
            UsageError: there is no readout of that name.
        """
        if isinstance(how, str):
            require_readout(how)
        self.how = how
        self.name = name or (how if isinstance(how, str) else str(getattr(how, "__name__", how)))
        self.layout = layout


class OutputReader:
    """Reads the outputs of one pass; the layout that its first batch has holds for all."""

    def __init__(self, readout: Readout) -> None:
        self.readout, self.layout = readout, readout.layout

    def __call__(self, output: Any, samples: int) -> Tensor:
        """The logits that count, (T, N, classes), T = 1 where there is one score per class.

        Raises:
            InputError: the output has another form, or another layout than before.
        """
        how = self.readout.how
        if isinstance(how, str):
            return READOUTS[how](self._steps(output, samples).float())
        return self._check_scores(how(output), samples).float().unsqueeze(0)

    def _steps(self, output: Any, samples: int) -> Tensor:
        """The output as (T, N, classes)."""
        steps, layouts = _find_layouts(output, samples)
        # where T = N both fit: the layout of the batches before, else time first
        if self.layout not in layouts:
            if self.layout is not None:
                raise InputError(
                    f"the network puts out {layouts[0]} and put out {self.layout} before",
                    field="--readout",
                    hint="where N = T a layout is a guess: give another --batch-size",
                )
            self.layout = layouts[0]
        return steps if self.layout == TIME_FIRST else steps.transpose(0, 1)

    def _check_scores(self, scores: object, samples: int) -> Tensor:
        """What the user's own function gave, if it is scores (N, classes)."""
        fits = (
            isinstance(scores, Tensor)
            and scores.dim() == 2
            and len(scores) == samples
            and scores.numel() > 0
            and scores.is_floating_point()
        )
        if not fits or not isinstance(scores, Tensor):
            raise InputError(
                f"{self.readout.name} returned {_describe_value(scores)} for {samples} samples",
                field="--readout",
                hint="expected floating-point scores (N, classes)",
            )
        return scores


def _find_layouts(output: Any, samples: int) -> tuple[Tensor, tuple[str, ...]]:
    """The output as one tensor of three dimensions, and the layouts that its shape fits."""
    if isinstance(output, tuple) and output:
        return _find_layouts(output[0], samples)
    known: tuple[str, ...] = (TIME_FIRST,)
    if _is_steps(output):
        steps = torch.stack(output)
    elif isinstance(output, Tensor) and output.dim() == 2:
        steps = output.unsqueeze(0)
    elif isinstance(output, Tensor) and output.dim() == 3:
        steps, known = output, (TIME_FIRST, SAMPLES_FIRST)
    else:
        raise _unreadable_error(_describe_value(output), samples)
    layouts = tuple(name for name in known if steps.shape[SAMPLE_AXIS[name]] == samples)
    if not layouts or not steps.numel() or steps.is_complex():
        raise _unreadable_error(_describe_value(output), samples)
    return steps, layouts


def _is_steps(output: Any) -> bool:
    """Whether it is a list over time of tensors (N, classes), all alike."""
    if not isinstance(output, list) or not all(isinstance(step, Tensor) for step in output):
        return False
    return {step.dim() for step in output} == {2} and len({step.shape for step in output}) == 1


def _unreadable_error(what: str, samples: int) -> InputError:
    return InputError(
        f"the network puts out {what} for {samples} samples", field="--readout", hint=EXPECTED
    )


def _describe_value(value: object) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        kind = str(value.dtype).removeprefix("torch.")
        return f"a {kind} tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, list(value)[:5]))}"
    if isinstance(value, tuple | list) and value:
        return f"a {type(value).__name__} of {_describe_value(value[0])} and {len(value) - 1} more"
    return type(value).__name__
