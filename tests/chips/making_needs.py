"""Layers as numbers, for tests of what fits a chip."""

from dataclasses import replace
from typing import Any

from snnprune.chips import Chip, load_chip
from snnprune.chips.needs import LayerNeeds, LayerNeuron

IF = LayerNeuron(name="n", kind="if", decay=1.0, reset="zero")


def conv(layer: str, inputs: int, outputs: int, side: int = 8, **other: Any) -> LayerNeeds:
    """A convolution with a kernel of 3x3 and an output of `side` x `side`, all weights alive."""
    weights = inputs * outputs * 9
    made = LayerNeeds(
        layer=layer,
        kind="conv2d",
        inputs=inputs,
        outputs=outputs,
        kernel=(3, 3),
        input_size=(side, side),
        size=(side, side),
        stride=(1, 1),
        padding=(1, 1),
        dilation=(1, 1),
        bias=True,
        alive=weights,
        connections=weights * side * side,
        fan_in=inputs * 9,
        bits=8,
        channel_bits=8,
        neurons=(replace(IF, name=f"neuron of {layer}"),),
        group=layer,
    )
    return replace(made, **other)


def linear(layer: str, inputs: int, outputs: int, **other: Any) -> LayerNeeds:
    """A linear layer, all weights alive."""
    made = conv(layer, inputs, outputs)
    weights = inputs * outputs
    flat = replace(
        made,
        kind="linear",
        kernel=(),
        input_size=(),
        size=(),
        stride=(),
        padding=(),
        dilation=(),
        alive=weights,
        connections=weights,
        fan_in=inputs,
    )
    return replace(flat, **other)


def chain(*layers: LayerNeeds) -> tuple[LayerNeeds, ...]:
    """The layers one after the other, the last of which keeps its channels."""
    made = [layers[0]]
    for one in layers[1:]:
        made.append(replace(one, sources=(made[-1].layer,), reads=made[-1].layer))
    made[-1] = replace(made[-1], group=None)
    return tuple(made)


def change_chip(name: str, **settings: Any) -> Chip:
    """A built-in chip with other settings."""
    return Chip.model_validate({**load_chip(name).model_dump(), **settings})
