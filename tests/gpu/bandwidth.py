"""GB/s of LIF neurons, forward and backward, beside those of a copy: `bandwidth.py --out FILE`.

What is counted is what any implementation has to move: forward the current and the spikes,
backward the current and both gradients. So what also moves a membrane has fewer GB/s.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from measuring import FLUSHED, Lines, Unavailable, make_parser, read_flags, say, time_calls
from neurons import BACK_ENDS, Fire, make_plain, make_spikingjelly, make_triton
from torch import Tensor

SHAPES = ((4, 64, 128, 32, 32), (4, 64, 512, 8, 8), (4, 256, 128, 32, 32))
"""(T, N, C, H, W): early and late neurons of res-snn-19 in a batch of 64, and a large batch."""
SMALL = ((2, 3, 4, 5, 5),)
DTYPES = (torch.float32, torch.bfloat16)
COPY, FORWARD, BACKWARD = 2, 2, 3  # tensors that are read or written
ROUNDS = 50


def candidates() -> Iterator[tuple[str, Callable[[torch.device], Fire]]]:
    """Names, and what makes their function from current to spikes."""
    yield "triton", make_triton
    yield "plain", make_plain
    for name in BACK_ENDS:
        yield f"SpikingJelly {name}", partial(make_spikingjelly, back_end=name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a row for each shape, type, candidate and pass."""
    flags = read_flags(make_parser("GB/s of LIF neurons."), arguments)
    lines = Lines(flags.out)
    clock = partial(
        time_calls,
        device=flags.device,
        rounds=3 if flags.small else ROUNDS,
        flushed=1 if flags.small else FLUSHED,
    )
    for shape in SMALL if flags.small else SHAPES:
        for dtype in DTYPES:
            compare(torch.randn(shape, device=flags.device, dtype=dtype), clock, lines)


def compare(x: Tensor, clock: Callable[[Callable[[], object]], float], lines: Lines) -> None:
    """Write the rows of one current (T, ...)."""
    case: dict[str, Any] = {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")}
    size = x.numel() * x.element_size() / 1e9

    def add(name: str, direction: str, tensors: int, call: Callable[[], object]) -> None:
        ms = clock(call)
        speed = tensors * size / (ms / 1e3)
        lines.add(**case, candidate=name, direction=direction, ms=ms, gb_per_s=speed)

    other = torch.empty_like(x)
    add("copy", "copy", COPY, lambda: other.copy_(x))
    expected = make_plain(x.device)(x)
    for name, make in candidates():
        try:
            fire = make(x.device)
            leaf = x.detach().requires_grad_()
            spikes = fire(leaf)
            lines.add(**case, candidate=name, other_spikes=share_of_others(spikes, expected))
            add(name, "forward", FORWARD, partial(fire, leaf))
            add(name, "backward", BACKWARD, partial(differentiate, spikes, leaf, other))
        except Unavailable as reason:
            lines.add(**case, candidate=name, absent=say(reason))
        except Exception as error:  # of the others the numbers are wanted all the same
            lines.add(**case, candidate=name, failed=say(error))


def differentiate(spikes: Tensor, leaf: Tensor, grad: Tensor) -> None:
    """A backward pass, which leaves the graph for the next."""
    torch.autograd.grad(spikes, leaf, grad, retain_graph=True)


def share_of_others(spikes: Tensor, expected: Tensor) -> float:
    """The share of spikes that are not as expected, in [0, 1]: what is fast should be right too."""
    return int((spikes.detach() != expected).sum()) / math.prod(expected.shape)


if __name__ == "__main__":
    main()
