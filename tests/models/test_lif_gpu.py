"""The Triton kernels, run by Triton's interpreter, and compiled for GPUs that are not here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

INTERPRETED = """
import itertools, sys
import torch
from snnprune.models.lif import Dynamics, gpu, plain

torch.manual_seed(0)
narrow = torch.bfloat16, torch.float16
for case in itertools.product(
    [{"reset": "soft"}, {"reset": "soft", "v_rest": 0.1}, {}, {"v_reset": -0.3, "v_rest": 0.1}],
    [(False, False), (True, True), (False, True)],
    ["atan", "triangle", "sigmoid"],
    [torch.float32, sys.argv[1]],
):
    reset, (decay_input, detach_reset), surrogate, dtype = case
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    dynamics = Dynamics(
        **reset, beta=0.6, threshold=0.8, surrogate=surrogate,
        decay_input=decay_input, detach_reset=detach_reset,
    )
    for steps, arrange in (
        (1, lambda x: x), (3, lambda x: x.transpose(1, 2)), (4, lambda x: x[:1].expand_as(x)),
    ):
        current = arrange(torch.randn(steps, 3, 17) * 1.5).to(dtype)
        weights = torch.randn(current.shape).to(dtype)
        expected, membrane = plain.fire_and_keep_membrane(current.float(), dynamics)
        clear = ((membrane - dynamics.threshold).abs() > 1e-5).all(0)  # no rounding turns a spike
        leaf = current.detach().requires_grad_()
        spikes = gpu.fire(leaf, dynamics)
        assert spikes.dtype == dtype and spikes.is_contiguous()
        assert torch.equal(spikes.float()[:, clear], expected[:, clear]), case
        (grad,) = torch.autograd.grad(spikes, leaf, weights)
        wanted = plain.compute_gradient(weights.float(), membrane, dynamics).to(dtype)
        torch.testing.assert_close(grad[:, clear], wanted[:, clear], msg=str(case))
        again, kept = gpu.fire_and_keep_membrane(current, dynamics)
        assert torch.equal(again, spikes) and kept.dtype == torch.float32
        torch.testing.assert_close(kept[:, clear], membrane[:, clear])
"""

COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from snnprune.models.lif import gpu

counts = {"stride", "steps", "neurons"}
tensors = {"current", "spikes", "grad_spikes", "grad"}
for kernel, constants in (
    (gpu.forward_kernel, {"membrane": None, "SOFT": False, "BLOCK": gpu.BLOCK}),
    (gpu.forward_kernel, {"SOFT": True, "BLOCK": gpu.BLOCK}),
    (gpu.backward_kernel, {"SOFT": True, "DETACH": False, "SURROGATE": 2, "BLOCK": gpu.BLOCK}),
    (gpu.backward_kernel, {"SOFT": False, "DETACH": True, "SURROGATE": 0, "BLOCK": gpu.BLOCK}),
):
    types = {
        name: "constexpr" if name in constants else "i32" if name in counts
        else "*bf16" if name in tensors else "*fp32" if name == "membrane" else "fp32"
        for name in kernel.arg_names
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants)
    for capability in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert f"sm_{capability}" in made.asm["ptx"] and made.asm["cubin"]
"""


def run(code: str, *arguments: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("narrow", ["bfloat16", "float16"])
def test_interpreted_kernels_give_what_torch_gives(narrow: str) -> None:
    run(INTERPRETED, narrow, TRITON_INTERPRET="1")


@pytest.mark.slow
def test_the_kernels_compile_for_gpus_of_two_generations(tmp_path: Path) -> None:
    run(COMPILED, TRITON_CACHE_DIR=str(tmp_path))
