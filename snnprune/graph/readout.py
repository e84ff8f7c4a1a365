"""From what a network puts out to one score per class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from snnprune.errors import InputError, error_class_for
from snnprune.errors.text import did_you_mean

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


def require_readout(name: str, *, field: str = "--readout") -> None:
    """Refuse an unknown readout before any work is done.

    Raises:
        UsageError: it is not known, and `field` is a flag.
        InputError: likewise, in a file.
    """
    if name not in READOUTS:
        raise error_class_for(field)(
            f"unknown readout {name!r}", field=field, hint=did_you_mean(name, READOUTS)
        )


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
