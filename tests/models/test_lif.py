"""The LIF neuron against hand-worked numbers, a plain time loop and SpikingJelly."""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from snnprune.errors import InputError
from snnprune.models.lif import LIF, Dynamics
from snnprune.models.lif.choice import VARIABLE
from snnprune.models.lif.native import find_native_path

# What each surrogate derivative is the derivative of; x = u - u_th.
PRIMITIVES: dict[str, Callable[[Tensor], Tensor]] = {
    "atan": lambda x: (math.pi * x).atan() / math.pi,  # alpha = 2
    "triangle": lambda x: x.clamp(-1, 1) - x.clamp(-1, 1) * x.clamp(-1, 1).abs() / 2,
    "sigmoid": lambda x: (4 * x).sigmoid(),
}
RESETS: dict[str, dict[str, Any]] = {
    "soft": {"reset": "soft"},
    "hard to 0": {"reset": "hard"},
    "hard to -0.2, resting there": {"v_reset": -0.2, "v_rest": -0.2},
    "hard to -0.3, leaking to 0": {"v_reset": -0.3},
    "hard to 0.2, leaking to 0": {"v_reset": 0.2},
    "hard to 0, resting at 0.1": {"v_rest": 0.1},
    "soft, resting at 0.1": {"reset": "soft", "v_rest": 0.1},
}

BOTH = (False, True)
MARGIN = 1e-4  # nothing comes closer to the threshold, or rounding could turn a spike over
# Of float32, over eight steps; a wrong term is of the order of 0.1.
TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 2e-6}


@pytest.fixture(params=["plain", "native"], autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is said here is true of either path."""
    if request.param == "native" and isinstance(found := find_native_path(), str):
        pytest.skip(f"no native path: {found}")
    monkeypatch.setenv(VARIABLE, request.param)


def naive(current: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Spikes and membranes (T, ...) by Eq. 2-4, one step at a time, for plain autograd."""
    d = dynamics
    carried = torch.full_like(current[0], d.v_rest)
    spikes, membranes = [], []
    for x in current:
        u = carried + (1 - d.beta) * x if d.decay_input else carried + x
        smooth = PRIMITIVES[d.surrogate](u - d.threshold)
        s = (u >= d.threshold).to(u.dtype) + (smooth - smooth.detach())
        felt = s.detach() if d.detach_reset else s
        if d.reset == "soft":
            carried = d.v_rest + d.beta * (u - d.threshold * felt - d.v_rest)
        else:
            carried = d.v_reset * felt + (d.v_rest + d.beta * (u - d.v_rest)) * (1 - felt)
        spikes.append(s)
        membranes.append(u)
    return torch.stack(spikes), torch.stack(membranes)


def currents(dynamics: Dynamics) -> Tensor:
    """(8, neurons) float32: no membrane is within the margin of the threshold, many are near it."""
    drive = 2.0 if dynamics.decay_input else 1.0
    drawn = torch.randn(8, 600, generator=torch.Generator().manual_seed(0)) * drive + drive / 2
    _, membranes = naive(drawn.double(), dynamics)
    nearest = (membranes - dynamics.threshold).abs().amin(0)
    chosen = drawn[:, (nearest > MARGIN) & (nearest < 0.1)]
    assert chosen.shape[1] > 150
    return chosen


def with_gradient(run: Callable[[Tensor], Tensor], current: Tensor) -> tuple[Tensor, Tensor]:
    """The output of `run` and the gradient of a weighted sum of it with respect to `current`."""
    leaf = current.clone().requires_grad_()
    output = run(leaf)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(1))
    (output * weights.to(output.dtype)).sum().backward()
    assert leaf.grad is not None
    return output.detach(), leaf.grad


@pytest.mark.parametrize("surrogate", PRIMITIVES)
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(("decay_input", "detach_reset"), [*product(BOTH, BOTH)])
def test_spikes_and_gradient_are_those_of_a_plain_loop_in_float64(
    surrogate: Any, reset: str, decay_input: bool, detach_reset: bool
) -> None:
    dynamics = Dynamics(
        **{"beta": 0.6, "threshold": 0.8, **RESETS[reset]},
        decay_input=decay_input,
        surrogate=surrogate,
        detach_reset=detach_reset,
    )
    current = currents(dynamics)
    spikes, gradient = with_gradient(LIF(dynamics), current)
    expected = with_gradient(lambda x: naive(x, dynamics)[0], current.double())
    assert torch.equal(spikes.double(), expected[0])
    assert 0.1 < float(spikes.mean()) < 0.9
    torch.testing.assert_close(gradient.double(), expected[1], **TOLERANCE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("surrogate", PRIMITIVES)
@pytest.mark.parametrize("v_reset", [None, 0.0, -0.2])
@pytest.mark.parametrize(("decay_input", "detach_reset"), [*product(BOTH, BOTH)])
def test_spikes_and_gradient_are_those_of_spikingjelly(
    surrogate: Any, v_reset: float | None, decay_input: bool, detach_reset: bool
) -> None:
    from spikingjelly.activation_based import neuron
    from spikingjelly.activation_based import surrogate as theirs

    surrogates = {
        "atan": theirs.ATan(),
        "triangle": theirs.PiecewiseQuadratic(1.0),
        "sigmoid": theirs.Sigmoid(4.0),
    }
    dynamics = Dynamics(
        beta=0.25,
        reset="soft" if v_reset is None else "hard",
        v_reset=v_reset or 0.0,
        v_rest=v_reset or 0.0,
        decay_input=decay_input,
        surrogate=surrogate,
        detach_reset=detach_reset,
    )
    node = neuron.LIFNode(
        tau=1 / (1 - dynamics.beta),
        decay_input=decay_input,
        v_reset=v_reset,
        surrogate_function=surrogates[surrogate],
        detach_reset=detach_reset,
        step_mode="m",
    )
    current = currents(dynamics)
    spikes, gradient = with_gradient(LIF(dynamics), current)
    expected = with_gradient(node, current)
    assert torch.equal(spikes, expected[0])
    torch.testing.assert_close(gradient, expected[1], **TOLERANCE)


@pytest.mark.parametrize(
    ("options", "membrane"),
    [
        ({}, [0.75, 1.125, 0.75, 0.625]),
        ({"reset": "soft"}, [0.75, 1.125, 0.8125, 0.65625]),
        ({"v_reset": -0.5}, [0.75, 1.125, 0.25, 0.375]),
        ({"v_rest": 0.25}, [1.0, 0.75, 1.25, 0.25]),
        ({"decay_input": True}, [0.375, 0.5625, 0.65625, 0.453125]),
    ],
)
def test_four_steps_worked_by_hand(options: dict[str, Any], membrane: list[float]) -> None:
    neuron = LIF(Dynamics(beta=0.5, **options))
    seen: list[Tensor] = []
    neuron.on_distance = seen.append
    spikes = neuron(torch.tensor([[0.75], [0.75], [0.75], [0.25]]))
    assert (seen[0].flatten() + 1).tolist() == membrane
    assert spikes.flatten().tolist() == [float(u >= 1) for u in membrane]


def test_by_default_it_is_a_hard_reset_to_0_of_a_half_life_of_one_step() -> None:
    assert Dynamics() == Dynamics(
        beta=0.5,
        threshold=1.0,
        reset="hard",
        v_reset=0.0,
        v_rest=0.0,
        decay_input=False,
        surrogate="atan",
        detach_reset=True,
    )


def test_a_membrane_at_the_threshold_fires() -> None:
    assert LIF(Dynamics())(torch.ones(1, 1)).item() == 1.0


@pytest.mark.parametrize("reset", ["hard", "soft"])
def test_the_gradient_takes_a_membrane_at_the_threshold_for_one_that_fired(reset: Any) -> None:
    dynamics = Dynamics(reset=reset)
    current = torch.tensor([[1.0], [0.25], [1.0]])  # the first is at the threshold, to the bit
    spikes, gradient = with_gradient(LIF(dynamics), current)
    expected = with_gradient(lambda x: naive(x, dynamics)[0], current.double())
    assert spikes.flatten().tolist() == [1.0, 0.0, 1.0]
    torch.testing.assert_close(gradient.double(), expected[1], **TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_keeps_the_membrane_in_float32(dtype: torch.dtype) -> None:
    neuron = LIF(Dynamics(beta=1.0, threshold=65.0))
    # in half precision 64 + 1/64 is 64, and the sum would stand still
    current = torch.tensor([[64.0], *[[1 / 64]] * 64]).to(dtype)
    plain = neuron(current)
    assert plain.dtype == dtype
    assert plain.flatten().tolist() == [0.0] * 64 + [1.0]
    seen: list[Tensor] = []
    neuron.on_distance = seen.append
    assert torch.equal(neuron(current), plain)
    assert seen[0].dtype == torch.float32
    assert seen[0][-1].item() == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_gradient_has_the_type_of_the_input(dtype: torch.dtype) -> None:
    spikes, gradient = with_gradient(LIF(Dynamics()), torch.full((2, 3), 0.7, dtype=dtype))
    assert (spikes.dtype, gradient.dtype) == (dtype, dtype)


def test_no_state_survives_a_call() -> None:
    neuron = LIF(Dynamics(beta=1.0))
    current = torch.full((2, 1), 0.4)
    assert neuron(current).sum() == 0
    assert neuron(current).sum() == 0  # 1.6 in all would have fired
    assert neuron(torch.full((3, 2, 5), 0.4)).sum() == 10  # at the third step, in any shape


def test_state_dict_is_empty() -> None:
    neuron = LIF(Dynamics())
    neuron(torch.ones(2, 1))
    assert not neuron.state_dict()


@pytest.mark.parametrize("reset", RESETS)
def test_recording_gets_the_distance_before_reset_and_changes_no_spike(reset: str) -> None:
    dynamics = Dynamics(**RESETS[reset])
    neuron, current = LIF(dynamics), currents(dynamics)
    plain = neuron(current)
    seen: list[Tensor] = []
    neuron.on_distance = seen.append
    assert torch.equal(neuron(current), plain)
    _, membrane = naive(current.double(), dynamics)
    (recorded,) = seen
    distance = membrane - dynamics.threshold
    torch.testing.assert_close(recorded.double(), distance, rtol=1e-6, atol=2e-6)
    assert torch.equal(recorded >= 0, plain.bool())


def test_the_input_is_left_unchanged() -> None:
    current = torch.full((3, 2), 0.9)
    with_gradient(LIF(Dynamics(decay_input=True)), current)
    assert torch.equal(current, torch.full((3, 2), 0.9))


def test_an_expanded_input_is_as_good_as_its_copies() -> None:
    image = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(2))
    neuron = LIF(Dynamics(detach_reset=False))
    expanded = with_gradient(lambda x: neuron(x.expand(5, -1, -1)), image)
    copied = with_gradient(lambda x: neuron(x.repeat(5, 1, 1)), image)
    assert torch.equal(expanded[0], copied[0])
    torch.testing.assert_close(expanded[1], copied[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": -0.1}, "neuron.beta: -0.1 is outside [0, 1]"),
        ({"beta": 1.1}, "neuron.beta: 1.1 is outside [0, 1]"),
        ({"beta": math.nan}, "neuron.beta: nan is outside [0, 1]"),
        ({"threshold": math.nan}, "neuron.threshold: nan is not a finite number"),
        ({"v_reset": -math.inf}, "neuron.v_reset: -inf is not a finite number"),
        ({"v_rest": math.nan}, "neuron.v_rest: nan is not a finite number"),
        ({"reset": "sfot"}, "neuron.reset: unknown reset 'sfot'. choose from hard, soft"),
        ({"v_reset": 1.0}, "neuron.v_reset: 1.0 is not below the threshold 1.0"),
        (
            {"surrogate": "sigmiod"},
            "neuron.surrogate: unknown surrogate 'sigmiod'. did you mean sigmoid?",
        ),
        ({"treshold": 2.0}, "neuron.treshold: unknown setting. did you mean threshold?"),
    ],
)
def test_constants_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        Dynamics.from_options(options)
    assert str(caught.value) == message


def test_a_soft_reset_may_have_any_threshold() -> None:
    assert Dynamics(reset="soft", threshold=-0.5).threshold == -0.5


def test_options_fill_in_what_they_name_and_leave_the_rest() -> None:
    assert Dynamics.from_options({"beta": 0.25}) == Dynamics(beta=0.25)
    assert Dynamics.from_options(None) == Dynamics()
