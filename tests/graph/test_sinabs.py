"""Real networks of sinabs: links, membranes, scores, and nothing left behind."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from behaviour import Behaviour, DropIn, Networks, cases_of, made_of
from torch import Tensor, nn
from zoo import (
    Links,
    calibrated,
    images,
    left_out,
    lively,
    log_crisis,
    output,
    scored,
    seen,
)

from snnprune.graph.libraries import library_of
from snnprune.graph.trace import trace
from snnprune.measure.calibrate import calibrate

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # third-party imports
    import sinabs.layers as sl
    from sinabs.activation import MaxSpike, MembraneReset, MembraneSubtract, MultiSpike, SingleSpike
    from sinabs.from_torch import from_model
    from sinabs.layers.alif import ALIFSqueeze

STEPS = 3
LOW = torch.tensor(0.3)


def squeezed() -> nn.Module:
    """As sinabs' tutorials write networks: batch and time in one dimension."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        sl.IAFSqueeze(num_timesteps=STEPS, min_v_mem=-1.0),
        nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        sl.LIFSqueeze(tau_mem=2.0, num_timesteps=STEPS, spike_fn=SingleSpike, spike_threshold=LOW),
        nn.Flatten(),
        nn.Linear(6 * 9, 10),
        sl.ExpLeakSqueeze(tau_mem=5.0, num_timesteps=STEPS),
    )


def unsqueezed() -> nn.Module:
    """(N, T, C, H, W) all along, a layer for each step by Repeat."""
    return nn.Sequential(
        sl.Repeat(nn.Conv2d(1, 4, 3)),
        sl.Repeat(nn.BatchNorm2d(4)),
        sl.LIF(tau_mem=2.0, spike_threshold=torch.tensor([0.2, 0.4, 0.6, 0.8]).view(4, 1, 1)),
        sl.Repeat(nn.AvgPool2d(2)),
        sl.Repeat(nn.Conv2d(4, 6, 3, bias=False)),
        sl.Repeat(nn.BatchNorm2d(6)),
        sl.ALIF(tau_mem=2.0, tau_adapt=4.0, spike_threshold=torch.tensor(0.3)),
        nn.Flatten(2),
        nn.Linear(6 * 9, 10),
    )


def relus(*norms: nn.Module) -> nn.Module:
    first, second = norms or (nn.Identity(), nn.Identity())
    return nn.Sequential(
        *(nn.Conv2d(1, 4, 3), first, nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3), second, nn.ReLU()),
        *(nn.Flatten(), nn.Linear(6 * 9, 10), nn.ReLU()),
    )


def converted(*norms: nn.Module) -> nn.Module:
    """A network of rectifiers after `from_model`."""
    network: nn.Module = from_model(
        relus(*norms).eval(), spike_threshold=torch.tensor(0.2), num_timesteps=STEPS
    ).spiking_model
    return network


class Recurrent(nn.Module):
    """A residual sum of spikes, then a neuron with a connection to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.first = sl.IAFSqueeze(num_timesteps=STEPS)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        back = nn.Conv2d(4, 4, 3, padding=1)
        self.second, self.merge = sl.LIFRecurrent(tau_mem=2.0, rec_connect=back), sl.Merge()

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.bn(self.conv(x)))
        y = self.merge(self.bn2(self.conv2(x)), x)
        spikes: Tensor = self.second(y.unflatten(0, (-1, STEPS)))
        return spikes


FRAMES = images(2 * STEPS, 1, 12, 12)
NETWORKS: Networks = {
    "squeezed": (squeezed, FRAMES),
    "unsqueezed": (unsqueezed, FRAMES.unflatten(0, (2, STEPS))),
    "converted": (converted, FRAMES),
    "converted with BatchNorm": (lambda: converted(nn.BatchNorm2d(4), nn.BatchNorm2d(6)), FRAMES),
    "recurrent": (Recurrent, FRAMES),
}
LINKS: dict[str, Links] = {
    "squeezed": {
        "0": (["2"], ["1"], [], True),
        "4": (["6"], ["5"], [], False),
        "8": ([], [], [], False),
    },
    "unsqueezed": {
        "0.module": (["2"], ["1.module"], [], True),
        "4.module": (["6"], ["5.module"], [], False),
        "8": ([], [], [], False),
    },
    "converted": {
        "0": (["2"], [], [], True),
        "4": (["6"], [], [], False),
        "8": (["9"], [], [], False),
    },
    "converted with BatchNorm": {
        "0": (["2"], ["1"], [], True),
        "4": (["6"], ["5"], [], False),
        "8": (["9"], [], [], False),
    },
    "recurrent": {
        "conv": (["first"], ["bn"], [], True),
        "conv2": (["second"], ["bn2"], ["add"], False),
        "second.rec_connect": (["second"], [], [], False),
    },
}

made = functools.partial(made_of, NETWORKS)
case = cases_of(NETWORKS, LINKS)


class TestBehaviour(Behaviour):
    results = (".firing_rate", ".recordings")


class TestDropIn(DropIn):
    network, weight = "squeezed", "4.weight"


class Lif:
    """LIF step by step in float64, by the equations of sinabs' documentation."""

    def __init__(self, *, tau: float | None = None, norm_input: bool = False) -> None:
        decay = torch.tensor(-1 / tau).exp().double() if tau else torch.tensor(1.0)
        self.decay, self.gain = decay, 1 - decay if norm_input else torch.tensor(1.0)
        self.threshold, self.low = torch.tensor(1.0), -torch.inf
        self.most: float = torch.inf
        self.to: float | None = None
        """What the membrane is set to; None subtracts the threshold per spike."""

    def run(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """(N, T, ...) to distances (T, N, ...) and spikes (N, T, ...)."""
        v = torch.zeros_like(current[:, 0])
        distances, spikes = [], []
        for x in current.unbind(1):
            u = self.decay * v + self.gain * x
            count = (u / self.threshold).floor().clamp(0, self.most)
            v = u - count * self.threshold if self.to is None else self._set(u, count, self.to)
            v = v.clamp(min=self.low)
            distances.append(u - self.threshold)
            spikes.append(count)
        return torch.stack(distances), torch.stack(spikes, 1)

    @staticmethod
    def _set(u: Tensor, count: Tensor, to: float) -> Tensor:
        # sinabs adds the value to all, also to those that did not fire
        return u * (count == 0) + to


def simulation(options: dict[str, Any], *, tau: float | None = None) -> Lif:
    made = Lif(tau=tau, norm_input=options.get("norm_input", tau is not None))
    made.threshold = options.get("spike_threshold", made.threshold).double()
    made.low = options.get("min_v_mem", made.low)
    fires = options.get("spike_fn", MultiSpike)
    made.most = 1 if fires is SingleSpike else getattr(fires, "max_num_spikes_per_bin", torch.inf)
    made.to = getattr(options.get("reset_fn"), "reset_value", None)
    return made


VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "one spike at most": {"spike_fn": SingleSpike},
    "two spikes at most": {"spike_fn": MaxSpike(2), "min_v_mem": -0.1},
    "reset to a value": {"reset_fn": MembraneReset(0.1), "spike_fn": SingleSpike},
    "a threshold": {"spike_threshold": torch.tensor(0.3), "reset_fn": MembraneSubtract()},
    "a threshold per channel": {
        "spike_threshold": torch.tensor([0.2, 0.4, 0.6, 0.8]).view(4, 1, 1)
    },
}


@pytest.mark.parametrize("tau", [None, 3.0])
@pytest.mark.parametrize("in_one", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_membranes_and_spikes_equal_an_independent_simulation(
    variant: str, in_one: bool, tau: float | None
) -> None:
    torch.manual_seed(0)
    options = VARIANTS[variant]
    known = options if tau is None else {**options, "tau_mem": tau}
    plain = sl.IAF if tau is None else sl.LIF
    small = sl.IAFSqueeze if tau is None else sl.LIFSqueeze
    spikes = small(num_timesteps=STEPS, **known) if in_one else plain(**known)
    split: nn.Module = nn.Identity() if in_one else nn.Unflatten(0, (2, STEPS))
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), split, spikes)
    lively(module)
    found = seen(trace(module, FRAMES), FRAMES)
    current = module[:2](FRAMES).double().unflatten(0, (2, STEPS))
    distances, counts = simulation(options, tau=tau).run(current)
    assert counts.max() > 0
    torch.testing.assert_close(found[0]["3"].double(), distances, rtol=0, atol=1e-5)
    assert torch.equal(found[1]["3"].double(), counts.flatten(0, 1) if in_one else counts)


@torch.no_grad()
def test_an_adaptive_membrane_is_measured_from_its_threshold_of_the_moment() -> None:
    torch.manual_seed(0)
    alif = sl.ALIF(tau_mem=2.0, tau_adapt=4.0, spike_threshold=torch.tensor(0.3))
    module = nn.Sequential(sl.Repeat(nn.Conv2d(1, 4, 3)), alif).eval()
    nn.init.constant_(module.get_parameter("0.module.bias"), 1.0)
    x = FRAMES.unflatten(0, (2, STEPS))
    found, spikes = seen(trace(module, x), x)
    current = module.get_submodule("0")(x).double()
    v, b = torch.zeros_like(current[:, 0]), torch.zeros_like(current[:, 0])
    alpha, rho = torch.tensor([-1 / 2, -1 / 4]).double().exp()
    expected, fired = [], []
    for step in current.unbind(1):
        u, threshold = alpha * v + (1 - alpha) * step, 0.3 + 1.8 * b
        s = (u >= threshold).double()
        v, b = u - s * threshold, rho * b + (1 - rho) * s
        expected.append(u - threshold)
        fired.append(s)
    assert torch.stack(fired).mean() > 0.05
    torch.testing.assert_close(found["1"].double(), torch.stack(expected), rtol=0, atol=1e-5)
    assert torch.equal(spikes["1"].double(), torch.stack(fired, 1))


@torch.no_grad()
def test_scores_equal_the_formula() -> None:
    module, x = made("squeezed")
    network = trace(module, x)
    result = scored(network, x)
    membranes, spikes = seen(network, x)
    rate = nn.functional.avg_pool2d(spikes["2"], 2).double().mean((0, 2, 3))
    norm: Any = module.get_submodule("5")
    expected = log_crisis(network.weight("4.weight"), rate, norm, membranes["6"])
    # an error lives for ever in the IAF, and in the LIF decays by exp(-1/2) a step
    gain = 1 - torch.tensor(-0.5).double().exp() ** STEPS
    torch.testing.assert_close(result.values["4.weight"], expected + gain.log(), rtol=0, atol=1e-4)
    assert set(result.fallback) == {"0.weight", "8.weight"}


def test_constants_are_read_off_the_neurons() -> None:
    thresholds = torch.tensor([0.2, 0.4]).view(2, 1, 1)
    neurons = [
        sl.IAF(spike_threshold=torch.tensor(0.5)),
        sl.LIF(tau_mem=2.0, spike_threshold=thresholds),
        sl.LIF(tau_mem=torch.tensor([2.0, 4.0]), norm_input=False),
        sl.ALIF(tau_mem=2.0, tau_adapt=3.0, spike_threshold=0.7),
        sl.LIF(tau_mem=2.0, spike_threshold=torch.rand(2, 3, 3).fill_(0.3)),
        # somebody's leaky integrator
        sl.LIF(tau_mem=2.0, spike_fn=None, spike_threshold=None),
    ]
    found = [library_of(one).constants(one) for one in neurons]  # type: ignore[union-attr]  # all known
    decay = float(torch.tensor(-0.5).exp())
    assert [one.beta for one in found] == pytest.approx([1.0, decay, None, decay, decay, decay])
    assert [one.decay_input for one in found] == [False, True, False, True, True, True]
    told = [torch.as_tensor(one.threshold).tolist() for one in found]
    assert told == [pytest.approx(one) for one in (0.5, [0.2, 0.4], 1.0, 0.7, 0.3, 0.0)]
    assert all(one.fires_at_threshold for one in found)


def test_statistics_do_not_depend_on_how_the_images_are_put_into_batches() -> None:
    x = images(7, STEPS, 1, 12, 12)
    network = trace(made("unsqueezed")[0], x[:2])
    whole = calibrated(network, x)
    uneven = calibrate(network, [(x[:4], None), (x[4:6], None), (x[6:], None)])
    for name, expected in whole.neurons.items():
        found = uneven.neurons[name]
        torch.testing.assert_close(found.membrane_mean, expected.membrane_mean)
        torch.testing.assert_close(found.firing_rate, expected.firing_rate)


@pytest.mark.parametrize("name", ["squeezed", "unsqueezed"])
def test_a_network_that_has_run_before_starts_at_rest(name: str) -> None:
    module, x = made(name)
    expected = output(trace(made(name)[0], x), x)
    with torch.no_grad():
        module(x[: len(x) // 2] + 1)
    assert torch.equal(output(trace(module, x), x), expected)


def test_after_a_reset_every_state_is_0_also_of_an_integrator() -> None:
    module, x = made("squeezed")
    network = trace(module, x)
    with torch.no_grad():
        module(x)
    states = [module.state_dict()[key] for key in ("2.v_mem", "6.v_mem", "9.v_mem")]
    assert all(bool(state.any()) for state in states)
    network.reset()
    after = [module.state_dict()[key] for key in ("2.v_mem", "6.v_mem", "9.v_mem")]
    assert not any(bool(state.any()) for state in after)
    assert [state.shape for state in after] == [state.shape for state in states]


@pytest.mark.parametrize("shape", [None, (2, 4, 10, 10), (1, 4, 10, 10)])
def test_states_keep_the_shape_in_which_they_were_made(shape: tuple[int, ...] | None) -> None:
    spikes = sl.IAFSqueeze(num_timesteps=STEPS, shape=shape)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), spikes).eval()
    before = {key: tensor.shape for key, tensor in module.state_dict().items()}
    network = trace(module, FRAMES)
    calibrate(network, [(FRAMES, None), (FRAMES[:STEPS], None)])
    assert {key: tensor.shape for key, tensor in module.state_dict().items()} == before


def back() -> nn.Module:
    return nn.Conv2d(4, 4, 3, padding=1)


LEAK: dict[str, Any] = {"tau_mem": 2.0, "spike_threshold": torch.tensor(0.3)}
ADAPT: dict[str, Any] = {**LEAK, "tau_adapt": 4.0}
EXPLAINED: dict[str, Callable[[], nn.Module]] = {
    "IAF": sl.IAF,
    "IAF with currents": lambda: sl.IAF(tau_syn=3.0),
    "IAFSqueeze": lambda: sl.IAFSqueeze(num_timesteps=STEPS),
    "IAFSqueeze told the batch": lambda: sl.IAFSqueeze(batch_size=2),
    "IAFRecurrent": lambda: sl.IAFRecurrent(rec_connect=back()),
    "LIF": lambda: sl.LIF(**LEAK),
    "LIF with currents": lambda: sl.LIF(**LEAK, tau_syn=3.0),
    "LIF of trained decays": lambda: sl.LIF(**LEAK, train_alphas=True),
    "LIFSqueeze": lambda: sl.LIFSqueeze(**LEAK, num_timesteps=STEPS),
    "LIFRecurrent": lambda: sl.LIFRecurrent(**LEAK, rec_connect=back()),
    "ALIF": lambda: sl.ALIF(**ADAPT),
    "ALIF with currents": lambda: sl.ALIF(**ADAPT, tau_syn=3.0),
    "ALIFSqueeze": lambda: ALIFSqueeze(**ADAPT, num_timesteps=STEPS),
    "ALIFRecurrent": lambda: sl.ALIFRecurrent(**ADAPT, rec_connect=back()),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_the_membrane_of_this_neuron_explains_its_spikes(name: str) -> None:
    torch.manual_seed(0)
    split: nn.Module = nn.Identity() if "Squeeze" in name else nn.Unflatten(0, (2, STEPS))
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), split, EXPLAINED[name]())
    nn.init.constant_(module.get_parameter("1.bias"), 0.5)
    x = images(2 * STEPS, 1, 8, 8)
    found = calibrated(module.eval(), x)
    assert float(found.neurons["3"].firing_rate.mean()) > 0.02
    assert not left_out(found)


def test_an_integrator_that_never_spikes_is_no_neuron() -> None:
    leaks = (sl.ExpLeak(tau_mem=2.0), sl.ExpLeakSqueeze(tau_mem=2.0, num_timesteps=STEPS))
    for module in (*leaks, sl.NeuromorphicReLU(), sl.SumPool2d(2), sl.Merge()):
        assert library_of(module) is None


def test_a_connection_between_all_places_does_not_hide_the_neuron() -> None:
    torch.manual_seed(0)
    everywhere = nn.Sequential(nn.Flatten(), nn.Linear(144, 144))
    recurrent = sl.IAFRecurrent(rec_connect=everywhere)
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Unflatten(0, (2, STEPS)), recurrent).eval()
    found = calibrated(module, images(6, 1, 8, 8))
    assert found.layers["0.weight"].drives[0].name == "2"
