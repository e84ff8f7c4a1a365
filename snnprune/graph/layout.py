"""How a parameter lies to the weight that a layer applies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Layout:
    """From a tensor in the form of a parameter to a weight (out, in / groups, *kernel), and back.

    The parameter is looked at in the shape `view`, its dimensions are put in `order`, and what
    comes of that is a weight of `shape`. No value changes, so that masks and scores go the same
    way.
    """

    held: tuple[int, ...]
    """Shape of the parameter."""
    view: tuple[int, ...]
    order: tuple[int, ...]
    shape: tuple[int, ...]
    """Of the weight."""

    @classmethod
    def of(cls, shape: Sequence[int]) -> Layout:
        """Of a parameter of that shape that is the weight itself."""
        same = tuple(shape)
        return cls(held=same, view=same, order=tuple(range(len(same))), shape=same)

    @property
    def is_plain(self) -> bool:
        """Whether the parameter is the weight as it lies."""
        return self.held == self.shape and self.in_order

    @property
    def in_order(self) -> bool:
        """Whether no dimension changes places."""
        return self.order == tuple(range(len(self.order)))

    def weight(self, held: Tensor) -> Tensor:
        """The weight (out, in / groups, *kernel) of a tensor in the form of the parameter."""
        if self.is_plain:
            return held
        return held.reshape(self.view).permute(self.order).reshape(self.shape)

    def back(self, weight: Tensor) -> Tensor:
        """What is in the form of the weight, in that of the parameter."""
        if self.is_plain:
            return weight
        seen = [self.view[place] for place in self.order]
        inverse = sorted(range(len(self.order)), key=self.order.__getitem__)
        return weight.reshape(seen).permute(inverse).reshape(self.held)

    def chain(self, other: Layout) -> Layout | None:
        """Both one after the other; None where no view and order says it."""
        if self.in_order:
            return Layout(held=self.held, view=other.view, order=other.order, shape=other.shape)
        if other.view != tuple(self.view[place] for place in self.order):
            return None
        order = tuple(self.order[place] for place in other.order)
        return Layout(held=self.held, view=self.view, order=order, shape=other.shape)


def find_layout(shape: Sequence[int], strides: Sequence[int]) -> Layout | None:
    """What an operation did to a contiguous tensor of `shape` that has those strides then.

    None where it did more than put dimensions in another order.
    """
    own = torch.empty(tuple(shape), device="meta").stride()
    places = [place for place, length in enumerate(shape) if length > 1]  # others say nothing
    by_stride = {own[place]: number for number, place in enumerate(places)}
    order = tuple(by_stride[stride] for stride in strides if stride in by_stride)
    if sorted(order) != list(range(len(places))):
        return None
    view = tuple(shape[place] for place in places)
    moved = tuple(view[place] for place in order)
    return Layout(held=tuple(shape), view=view, order=order, shape=moved)
