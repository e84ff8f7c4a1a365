"""The native path against the plain one, bit by bit."""

import sys
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import BaseTorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from snnprune.errors import UsageError
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate
from snnprune.models.lif import LIF, Dynamics, choice, fire, plain
from snnprune.models.lif.native import NativePath, find_native_path

native = pytest.mark.usefixtures("path")
BOTH = (False, True)
RESETS: list[dict[str, Any]] = [
    {"reset": "soft"},
    {"reset": "soft", "v_rest": 0.1},
    {},
    {"v_reset": -0.2, "v_rest": -0.2},
    {"v_reset": -0.3},
    {"v_rest": 0.1},
]

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda x: x.transpose(1, -1),
    "every other column": lambda x: x.flip(0)[:, :, ::2],
    "the same at every step": lambda x: x[:1].expand_as(x),
    "the same for every sample": lambda x: x[:, :1].expand_as(x),
    "transposed and the same at every step": lambda x: x[:1].transpose(1, 2).expand(4, -1, -1),
    "bfloat16": lambda x: x.to(torch.bfloat16),
    "float64": lambda x: x.double(),
    "a negative view": lambda x: torch.view_as_complex(x.unflatten(2, (-1, 2))).conj().imag,
}


@pytest.fixture(autouse=True)
def _of_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(choice.VARIABLE, raising=False)


@pytest.fixture
def path() -> NativePath:
    found = find_native_path()
    if isinstance(found, str):
        pytest.skip(f"no native path: {found}")
    return found


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 1.5


def spikes_and_gradient(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    leaf = current.detach().requires_grad_()
    spikes = LIF(dynamics)(leaf)
    (grad,) = torch.autograd.grad(spikes, leaf, draw(*spikes.shape, seed=1).to(spikes.dtype))
    return spikes.detach(), grad


def assert_same(one: Tensor, other: Tensor) -> None:
    assert one.dtype == other.dtype
    assert one.stride() == other.stride()
    torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def by_both(
    current: Tensor, dynamics: Dynamics, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of what the native and the plain path give."""
    found = []
    for name in ("native", "plain"):
        monkeypatch.setenv(choice.VARIABLE, name)
        found.append(spikes_and_gradient(current, dynamics))
    return zip(*found, strict=True)


@native
@pytest.mark.parametrize("surrogate", ["atan", "triangle", "sigmoid"])
@pytest.mark.parametrize("reset", RESETS, ids=str)
@pytest.mark.parametrize(("decay_input", "detach_reset"), [*product(BOTH, BOTH)])
def test_every_setting_gives_the_bits_of_the_plain_path(
    path: NativePath, surrogate: Any, reset: Any, decay_input: bool, detach_reset: bool
) -> None:
    for beta, threshold in ((0.6, 0.8), (0.0, 1.0), (1.0, 0.35)):
        dynamics = Dynamics(
            **reset,
            beta=beta,
            threshold=threshold,
            decay_input=decay_input and beta < 1,
            surrogate=surrogate,
            detach_reset=detach_reset,
        )
        assert choice.gives_the_same_bits(path, dynamics)


@native
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("reset", [{}, {"reset": "soft", "detach_reset": False}], ids=str)
@pytest.mark.parametrize("shape", [(1, 5), (3, 2, 8), (4, 70001), (9, 255), (2, 256), (3, 2, 257)])
def test_any_shape_in_any_number_of_threads_gives_the_bits_of_the_plain_path(
    shape: tuple[int, ...], reset: Any, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for one, other in by_both(draw(*shape), Dynamics(**reset), monkeypatch):
            assert_same(one, other)
    finally:
        torch.set_num_threads(before)


@native
@pytest.mark.parametrize("layout", LAYOUTS)
def test_however_a_current_lies_in_memory_it_gives_the_bits_of_the_plain_path(
    layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for one, other in by_both(LAYOUTS[layout](draw(4, 6, 10)), Dynamics(), monkeypatch):
        assert_same(one, other)


@native
def test_the_pictures_of_channels_last_become_spikes_that_are_contiguous(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pictures = draw(8, 5, 6, 7).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    assert not pictures.is_contiguous()
    for one, other in by_both(pictures, Dynamics(), monkeypatch):
        assert_same(one, other)
        assert one.is_contiguous()


@native
@pytest.mark.parametrize("reset", ["hard", "soft"])
@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 3.4e38, 1e-42, -0.0])
def test_what_is_no_usual_number_spreads_as_in_the_plain_path(
    odd: float, reset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    current = draw(4, 70)
    current[1, ::3] = odd
    dynamics = Dynamics(reset=reset, detach_reset=False)
    for one, other in by_both(current, dynamics, monkeypatch):
        assert_same(one, other)


@native
def test_a_membrane_that_is_recorded_is_that_of_the_plain_path(path: NativePath) -> None:
    current, dynamics = draw(5, 77), Dynamics(v_rest=0.1, threshold=0.7)
    _, distance = path.fire_and_keep_distance(current, dynamics)
    _, expected = plain.fire_and_keep_distance(current, dynamics)
    for one, other in zip(
        (*path.fire_and_keep_membrane(current, dynamics), distance),
        (*plain.fire_and_keep_membrane(current, dynamics), expected),
        strict=True,
    ):
        assert_same(one, other)


@native
@pytest.mark.parametrize("shape", [(3, 0), (3, 0, 5)])
def test_no_neurons_have_no_spikes(path: NativePath, shape: tuple[int, ...]) -> None:
    current = torch.zeros(shape, requires_grad=True)
    spikes = path.fire(current, Dynamics())
    spikes.sum().backward()
    assert current.grad is not None
    assert spikes.shape == current.grad.shape == shape
    assert LIF(Dynamics())(current).shape == shape


@native
def test_only_the_current_is_kept_and_one_step_of_what_is_the_same_at_each(
    path: NativePath,
) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    image = draw(1, 9).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, keep):
        path.fire(image.expand(5, 9), Dynamics())
    (current,) = kept
    assert current.data_ptr() == image.data_ptr()


@native
def test_a_second_derivative_is_refused(path: NativePath) -> None:
    current, weights = draw(2, 3).requires_grad_(), draw(2, 3).requires_grad_()
    spikes = path.fire(current, Dynamics())
    (grad,) = torch.autograd.grad(spikes, current, weights, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@native
def test_a_backward_pass_that_is_watched_is_the_plain_one(path: NativePath) -> None:
    current = draw(3, 4).requires_grad_()
    seen = []

    class Watching(TorchDispatchMode):
        def __torch_dispatch__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    spikes = path.fire(current, Dynamics())
    weights = draw(3, 4, seed=1)
    with Watching():
        (grad,) = torch.autograd.grad(spikes, current, weights)
    assert torch.ops.aten.addcmul_ in seen
    assert_same(grad, path.compute_gradient(weights, current.detach(), Dynamics()))


# what may not be taken for numbers in memory


@native
@pytest.mark.filterwarnings(
    "ignore:.torch.jit",
    "ignore::torch.jit.TracerWarning",
    "ignore:Guards may run slower",  # torch of the first Python 3.13
)
def test_compiled_traced_and_exported_networks_hold_torch_operations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(choice.VARIABLE, "native")
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), LIF(Dynamics()))
    first, second = draw(3, 2, 4), draw(3, 2, 4, seed=1) * 3
    with torch.no_grad():
        expected = network(second)
        exported = torch.export.export(network, (first,)).module()
        assert torch.equal(exported(second), expected)
        assert torch.equal(torch.compile(network, backend="eager")(second), expected)
        assert torch.equal(torch.jit.trace(network, first)(second), expected)


@native
@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # by torch itself
def test_tensors_without_memory_go_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "native")
    assert LIF(Dynamics())(torch.empty(3, 4, device="meta")).device.type == "meta"
    with pytest.raises(RuntimeError, match="Batching rule"):  # as ever
        torch.func.vmap(LIF(Dynamics()))(draw(2, 3, 4))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(draw(3, 4), draw(3, 4))
        with pytest.raises(NotImplementedError, match="forward AD"):
            LIF(Dynamics())(dual)


@native
def test_only_modes_that_want_no_neurons_are_not_in_the_way(path: NativePath) -> None:
    class Unconcerned(BaseTorchFunctionMode):
        watches_neurons = False

    current = draw(2, choice.LARGE)
    with Unconcerned():
        assert choice.choose_path(current, Dynamics()) is path
        with BaseTorchFunctionMode(), Unconcerned():
            assert choice.choose_path(current, Dynamics()) is plain


@native
def test_while_a_network_is_observed_its_neurons_run_natively(
    path: NativePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = nn.Sequential(nn.Linear(5, 6), LIF(Dynamics())).eval()
    network, x = trace(module, draw(4, 3, 5)), draw(4, 3, 5)
    assert choice.gives_the_same_bits(path, Dynamics())
    taken: list[str] = []
    for name in ("plain", "native"):
        where: Any = plain if name == "plain" else NativePath
        run = where.fire_and_keep_distance

        def seen(*args: Any, name: str = name, run: Any = run) -> Any:
            taken.append(name)
            return run(*args)

        monkeypatch.setattr(where, "fire_and_keep_distance", seen)
    for name in ("plain", "native"):
        monkeypatch.setenv(choice.VARIABLE, name)
        calibrate(network, [(x, torch.zeros(3))])
    assert taken == ["plain", "native"]


# which path is taken


@pytest.fixture
def asked_anew() -> Iterator[None]:
    """Nothing of this process has asked for the library."""
    find_native_path.cache_clear()
    yield
    find_native_path.cache_clear()


@pytest.mark.usefixtures("asked_anew")
def test_small_currents_compile_and_load_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snnprune.models.lif.native.load_library", lambda _: pytest.fail("loaded"))
    assert choice.choose_path(draw(4, 100), Dynamics()) is plain
    LIF(Dynamics())(draw(4, 100))


@native
def test_large_currents_and_small_ones_after_them_are_native(path: NativePath) -> None:
    assert choice.choose_path(draw(2, choice.LARGE // 2), Dynamics()) is path
    assert choice.choose_path(draw(2, 3), Dynamics()) is path


@native
def test_float64_is_not_taken_for_float32(path: NativePath) -> None:
    assert choice.choose_path(draw(2, 3).double(), Dynamics()) is plain
    assert fire(draw(2, 3).double(), Dynamics()).dtype == torch.float64


@native
def test_where_torch_rounds_otherwise_its_own_operations_are_taken(
    path: NativePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rounded(grad: Tensor, current: Tensor, dynamics: Dynamics) -> Tensor:
        return NativePath.compute_gradient(path, grad, current, dynamics) * (1 + 2**-23)

    monkeypatch.setattr(path, "compute_gradient", rounded)
    dynamics = Dynamics(beta=0.123)  # of which nothing is known yet
    assert choice.choose_path(draw(2, choice.LARGE), dynamics) is plain
    monkeypatch.setenv(choice.VARIABLE, "native")
    with pytest.raises(UsageError, match="native is not to be had: torch rounds otherwise here"):
        LIF(dynamics)(draw(2, 3))


@pytest.mark.usefixtures("asked_anew")
def test_without_a_compiler_all_is_plain_and_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("SNNPRUNE_CACHE", str(tmp_path / "cache"))
    assert choice.choose_path(draw(2, choice.LARGE), Dynamics()) is plain
    assert choice.describe_choice() == "plain (no C++ compiler)"
    monkeypatch.setenv(choice.VARIABLE, "native")
    with pytest.raises(UsageError) as caught:
        LIF(Dynamics())(draw(2, 3))
    assert str(caught.value) == "SNNPRUNE_LIF: native is not to be had: no C++ compiler"
    with pytest.raises(UsageError, match="no C\\+\\+ compiler"):
        choice.describe_choice()


@native
def test_without_openmp_it_is_for_one_thread(
    path: NativePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(path, "parallel", False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert choice.describe_choice() == f"plain ({path.compiler} without OpenMP, 4 threads)"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert choice.describe_choice() == f"native ({path.compiler}, one thread)"


def test_plain_is_taken_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(choice.VARIABLE, "plain")
    assert choice.choose_path(draw(2, choice.LARGE), Dynamics()) is plain
    assert choice.describe_choice() == "plain (SNNPRUNE_LIF)"


def test_triton_is_for_gpus_and_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = choice.describe_choice()
    monkeypatch.setenv(choice.VARIABLE, "triton")
    assert LIF(Dynamics())(draw(2, 3)).dtype == torch.float32
    monkeypatch.setitem(sys.modules, "snnprune.models.lif.gpu", ModuleType("gpu"))
    assert choice.describe_choice() == f"{usual}; triton on a GPU"
    monkeypatch.setitem(sys.modules, "snnprune.models.lif.gpu", None)  # no such module
    with pytest.raises(UsageError, match="SNNPRUNE_LIF: triton is not installed"):
        choice.describe_choice()


def test_an_unknown_choice_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, run: Callable[..., Any]
) -> None:
    monkeypatch.setenv(choice.VARIABLE, "nativ")
    done = run("env")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: SNNPRUNE_LIF: unknown choice 'nativ'. did you mean native?\n"
    with pytest.raises(UsageError):
        LIF(Dynamics())(draw(2, 3))


def test_env_says_how_neurons_are_computed(
    run: Callable[..., Any], as_json: Callable[..., Any]
) -> None:
    said = as_json(run("env", "--json"))["lif"]
    assert said == choice.describe_choice()
    if isinstance(find_native_path(), NativePath):
        assert said.startswith("native (")
