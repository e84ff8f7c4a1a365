"""SpikingJelly: IF, LIF, parametric LIF and the other neurons that fire through a surrogate.

Nodes are watched without their kernels. A kernel is chosen by a node's `backend` (0.0.0.0.6 to
0.0.0.0.14, and what came before 2.0.0), by `cupy_fp32_inference` (0.0.0.0.12), by the precision of
a node or an environment variable (2.x), and by being in eval mode (0.0.0.0.10 and 0.0.0.0.14). None
of them calls a surrogate function, where a membrane can be seen, and most of them need a GPU.
"""

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from snnprune.graph.libraries.library import (
    MembraneSink,
    NeuronConstants,
    NeuronLibrary,
    reshape_per_channel,
)

OLD = "spikingjelly.clock_driven."  # up to 0.0.0.0.12
NONLINEAR = ("QIFNode", "EIFNode", "IzhikevichNode")  # they have no one decay

KERNELS = ("cupy", "triton", "inductor", "hop")  # "lava" is no kernel but another neuron
CHARGE = "neuronal_charge_no_decay_input_reset0"  # of LIFNode of 0.0.0.0.14

# What a node of each of these versions asks whether the package of a kernel is installed.
CHECKS = {
    "spikingjelly.clock_driven.neuron": "check_backend",
    "spikingjelly.activation_based.base": "check_backend_library",
}

# Those of 2.x with nodes whose surrogate function is replaced while they are watched.
OPERATIONS = ("if_", "lif", "plif", "qif", "eif", "izhikevich", "clif", "activation_aware_if")


class _RecordingSurrogate(nn.Module):
    """A surrogate function that tells what it is given, u - u_th, once per time step."""

    spiking = False  # ComplementaryLIFNode would use a step function of its own instead

    def __init__(self, surrogate: nn.Module, sink: MembraneSink) -> None:
        super().__init__()
        self.surrogate, self.sink = surrogate, sink

    def forward(self, distance: Tensor) -> Tensor:
        self.sink(distance.unsqueeze(0))
        spikes: Tensor = self.surrogate(distance)
        return spikes


@contextlib.contextmanager
def _record_membranes(module: Any, sink: MembraneSink) -> Iterator[None]:
    if type(module).__name__ == "ILIFNode":  # counts spikes, and takes no other surrogate
        yield
        return
    # a surrogate of a class that it does not know takes a node of 2.x off its fused kernels
    children = module._modules
    held = children if "surrogate_function" in children else vars(module)
    surrogate = held["surrogate_function"]
    with run_plain_operations(module), run_step_by_step(module), choose_automatically():
        held["surrogate_function"] = _RecordingSurrogate(surrogate, sink)
        try:
            yield
        finally:
            held["surrogate_function"] = surrogate


@contextlib.contextmanager
def _enable_gradients(module: nn.Module) -> Iterator[None]:
    """In eval mode nodes of some versions run kernels that have no gradient."""
    with run_plain_operations(module), run_step_by_step(module):
        yield


def _read_constants(module: Any) -> NeuronConstants:
    threshold = module.v_threshold
    return NeuronConstants(
        threshold=reshape_per_channel(threshold) if isinstance(threshold, Tensor) else threshold,
        beta=_compute_decay(module),
        decay_input=_decays_input(module),
        subtracts={None: True, 0.0: False}.get(getattr(module, "v_reset", math.nan)),
    )


def _compute_decay(module: Any) -> float | None:
    """1 - 1/tau; an integrate-and-fire neuron forgets nothing."""
    if {base.__name__ for base in type(module).__mro__}.intersection(NONLINEAR):
        return None
    if hasattr(module, "tau"):
        return 1 - 1 / float(module.tau)
    if isinstance(getattr(module, "w", None), nn.Parameter):  # ParametricLIFNode
        return 1 - float(torch.sigmoid(module.w.detach()))
    return 1.0 if type(module).__name__ in ("IFNode", "MultiStepIFNode") else None


def _decays_input(module: Any) -> bool:
    """Before 0.0.0.0.10 nothing else could be chosen."""
    old = any(base.__module__.startswith(OLD) for base in type(module).__mro__)
    return bool(getattr(module, "decay_input", old and _compute_decay(module) not in (None, 1.0)))


def _reset(module: Any) -> None:
    module.reset()


@contextlib.contextmanager
def run_plain_operations(module: nn.Module) -> Iterator[None]:
    """Run a node or a layer by torch's operations, on any machine, whatever its author chose."""
    # past the setters, which would ask for the package of the kernel when it is put back
    held = vars(module)
    with _replace_attributes(held, _drop_kernels(module, held)):
        yield


def _drop_kernels(module: Any, held: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: "torch" for name in ("backend", "_backend") if held.get(name) in KERNELS
    }
    if held.get("cupy_fp32_inference"):
        found["cupy_fp32_inference"] = False
    if held.get("_neuron_precision") is not None:
        found["_neuron_precision"] = None
    if hasattr(module, "_torch_scan"):  # FlexSN of 2.x, which has kernels made on a GPU
        found["_multi_step"] = partial(_scan_steps, module)
    return found


def _scan_steps(module: Any, inputs: Any, states: Any, static_inputs: Any, store: bool) -> Any:
    module._validate_operands(inputs, states, static_inputs, "m")
    return module._torch_scan(inputs, states, static_inputs, store)


@contextlib.contextmanager
def run_step_by_step(module: Any) -> Iterator[None]:
    """Keep a node off its kernels for eval mode, without changing a bit of what it puts out.

    It leaves them in training mode, where a node of 0.0.0.0.14 has another formula for one case
    than in its kernels: no decay of the input, hard reset to 0.
    """
    if not _is_faster_in_eval_mode(module):
        yield
        return
    held = vars(module)
    changes: dict[str, Any] = {"training": True}
    if not module.training and module.v_reset is not None and hasattr(module, CHARGE):
        changes[CHARGE] = partial(_charge_as_kernel, module)
    with _replace_attributes(held, changes):
        yield


def _is_faster_in_eval_mode(module: nn.Module) -> bool:
    """Whether it is a node of 0.0.0.0.14, or an IFNode with soft reset of 0.0.0.0.10."""
    held, names = vars(module), {base.__qualname__ for base in type(module).__mro__}
    soft = "IFNode" in names and getattr(module, "v_reset", 0.0) is None
    return "_backend" in held or (
        soft and not hasattr(module, "step_mode") and "cupy_fp32_inference" not in held
    )


def _charge_as_kernel(module: Any, x: Tensor, v: Tensor, tau: float) -> Tensor:
    charged: Tensor = module.neuronal_charge_no_decay_input(x, v, 0.0, tau)
    return charged


@contextlib.contextmanager
def choose_automatically() -> Iterator[None]:
    """Let 2.x take its own way for an unknown surrogate function, whatever the environment says.

    Where a variable as SJ_LIF_CUDA_IMPLEMENTATION asks for a kernel it refuses that on a GPU.
    """
    modules = (sys.modules.get(f"spikingjelly._ops.{name}") for name in OPERATIONS)
    selections = (getattr(module, "_selection", None) for module in modules)
    with contextlib.ExitStack() as stack:
        for selection in selections:
            if getattr(selection, "_requested", "auto") != "auto":
                changes = {"_requested": "auto", "_selections": {}}
                stack.enter_context(_replace_attributes(vars(selection), changes))
        yield


@contextlib.contextmanager
def build_without_kernels() -> Iterator[None]:
    """Let nodes that ask for a kernel be made without its package: none of them will run it."""
    with contextlib.ExitStack() as stack:
        for name, check in CHECKS.items():
            held = vars(sys.modules[name]) if name in sys.modules else {}
            if check in held:
                stack.enter_context(
                    _replace_attributes(held, {check: partial(_check_backend, held[check])})
                )
        yield


def _check_backend(check: Callable[[str], None], backend: str) -> None:
    if backend not in KERNELS:
        check(backend)


@contextlib.contextmanager
def _replace_attributes(held: dict[str, Any], values: Mapping[str, Any]) -> Iterator[None]:
    """Other values in a dictionary of attributes; afterwards they are as they were, or gone."""
    before = {name: held[name] for name in values if name in held}
    held.update(values)
    try:
        yield
    finally:
        for name in values.keys() - before.keys():
            held.pop(name, None)
        held.update(before)


SPIKINGJELLY = NeuronLibrary(
    name="SpikingJelly",
    base_classes=(
        "spikingjelly.activation_based.neuron.base_node.BaseNode",
        "spikingjelly.activation_based.neuron.integrate_and_fire.ActivationAwareIFNode",
        "spikingjelly.activation_based.neuron.BaseNode",  # 0.0.0.0.14
        "spikingjelly.clock_driven.neuron.BaseNode",  # up to 0.0.0.0.12
    ),
    constants=_read_constants,
    recording=_record_membranes,
    reset=_reset,
    learning=_enable_gradients,
    plain=run_plain_operations,
    building=build_without_kernels,
    stateful_classes=(
        "spikingjelly.activation_based.base.MemoryModule",
        "spikingjelly.clock_driven.base.MemoryModule",
    ),
)
