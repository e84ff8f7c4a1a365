"""Whether somebody looks at what is done with a tensor, who must see torch's own operations."""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode


def is_watched(tensor: Tensor) -> bool:
    """Whether it is more than numbers in memory, or operations are being recorded or changed.

    So it is in `torch.compile`, `torch.export`, `torch.jit.trace` and `torch.func`, and while
    `graph.tracer` follows a network. A mode of torch functions that wants none of them says so by
    `watches_neurons = False`.
    """
    return (
        torch.compiler.is_compiling()  # first: what follows cannot be compiled
        or any(getattr(m, "watches_neurons", True) for m in _get_current_function_mode_stack())
        or _get_current_dispatch_mode() is not None
        or torch._C._get_tracing_state() is not None
        or torch._C._functorch.peek_interpreter_stack() is not None
        or forward_ad._current_level >= 0
        or type(tensor) not in (Tensor, nn.Parameter)
        or tensor.layout != torch.strided
        or tensor.is_neg()  # of which memory holds the opposite
    )
