"""Networks of every library, for exports that need the network."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, nn


class Loop(nn.Module):
    """The layers, three times; what is done `between` them is no module."""

    def __init__(self, *layers: nn.Module, between: Any = None) -> None:
        super().__init__()
        self.first, self.second = nn.Sequential(*layers[:2]), nn.Sequential(*layers[2:])
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        steps = []
        for _ in range(3):
            y = self.first(x)
            steps.append(self.second(self.between(y) if self.between else y))
        return torch.stack(steps)


def _leaky(**how: Any) -> nn.Module:
    neuron: nn.Module = import_module("snntorch").Leaky(beta=0.9, init_hidden=True, **how)
    return neuron


def _convolutional(*between: nn.Module, bias: bool = True, neurons: Any = _leaky) -> nn.Module:
    """Images (N, 1, 8, 8)."""
    pooled = any("Pool" in type(part).__name__ for part in between)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=bias),
        *between,
        neurons(),
        nn.Flatten(),
        nn.Linear(36 if pooled else 144, 10, bias=bias),
        neurons(),
    )


def _dense(neurons: Any) -> list[nn.Module]:
    """Vectors (N, 64)."""
    return [nn.Linear(64, 10), neurons(), nn.Linear(10, 10), neurons()]


# snnTorch


def snntorch_leaky() -> nn.Module:
    return _convolutional()


def snntorch_learned() -> nn.Module:
    return _convolutional(
        neurons=lambda: _leaky(learn_beta=True, learn_threshold=True, reset_mechanism="zero")
    )


def snntorch_pooled() -> nn.Module:
    return _convolutional(nn.AvgPool2d(2), bias=False)


def snntorch_synaptic() -> nn.Module:
    synaptic = import_module("snntorch").Synaptic
    return nn.Sequential(*_dense(lambda: synaptic(alpha=0.5, beta=0.9, init_hidden=True)))


def snntorch_recurrent() -> nn.Module:
    recurrent = import_module("snntorch").RLeaky
    return nn.Sequential(*_dense(lambda: recurrent(beta=0.9, linear_features=10, init_hidden=True)))


def snntorch_loop() -> nn.Module:
    return Loop(*_dense(_leaky))


def snntorch_step() -> nn.Module:
    """One step, of vectors (N, 64)."""
    return nn.Sequential(*_dense(_leaky))


def over_time(model: nn.Module, x: Tensor) -> Tensor:
    return torch.stack([model(frame) for frame in x])


def snntorch_with_states() -> nn.Module:
    leaky = import_module("snntorch").Leaky

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.flatten = nn.Flatten()
            self.fc1, self.lif1 = nn.Linear(64, 20), leaky(beta=0.9)
            self.fc2, self.lif2 = nn.Linear(20, 10), leaky(beta=0.8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            steps = []
            for _ in range(3):
                spikes, mem1 = self.lif1(self.fc1(self.flatten(x)), mem1)
                steps.append(self.lif2(self.fc2(spikes), mem2))
                mem2 = steps[-1][1]
            return torch.stack([s for s, _ in steps]), torch.stack([m for _, m in steps])

    return Net()


def snntorch_batchnorm() -> nn.Module:
    return _convolutional(nn.BatchNorm2d(4))


def snntorch_maxpool() -> nn.Module:
    return _convolutional(nn.MaxPool2d(2))


def snntorch_dropout() -> nn.Module:
    return _convolutional(nn.Dropout())


def snntorch_block() -> nn.Module:
    class Block(nn.Module):
        def __init__(self, inputs: int) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(inputs, 10), _leaky()

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = self.lif(self.fc(x))
            return spikes

    return nn.Sequential(Block(64), Block(10))


def snntorch_residual() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1, self.fc2, self.lif2 = _dense(_leaky)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.lif1(self.fc1(x))
            found: Tensor = self.lif2(self.fc2(spikes) + spikes)
            return found

    return Net()


def snntorch_scaled() -> nn.Module:
    return Loop(*_dense(_leaky), between=lambda spikes: 2 * spikes)


def snntorch_scaled_in_place() -> nn.Module:
    return Loop(*_dense(_leaky), between=lambda spikes: spikes.mul_(2))


def snntorch_scaled_input() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*_dense(_leaky))

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = self.layers(x / 2)
            return spikes

    return Net()


# SpikingJelly


def _jelly(pool: str = "", neuron: str = "LIFNode", mode: str = "s", **how: Any) -> nn.Module:
    found = "spikingjelly.activation_based"
    layer, neurons = (import_module(f"{found}.{name}") for name in ("layer", "neuron"))
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, bias=False),
        *([getattr(layer, pool)(2)] if pool else []),
        getattr(neurons, neuron)(**how),
        layer.Flatten(),
        layer.Linear(36 if pool else 144, 10),
        getattr(neurons, neuron)(**how),
    )
    import_module(f"{found}.functional").set_step_mode(net, mode)
    return net


def jelly_lif() -> nn.Module:
    return _jelly()


def jelly_parametric() -> nn.Module:
    return _jelly(neuron="ParametricLIFNode")


def jelly_pooled() -> nn.Module:
    return _jelly("AvgPool2d", "IFNode")


def jelly_steps() -> nn.Module:
    """Frames (T, N, 1, 8, 8)."""
    return _jelly(mode="m")


def jelly_batchnorm(pool: str = "MaxPool2d") -> nn.Module:
    """Frames (T, N, 1, 8, 8): a pool of spikes between two convolutions with BatchNorm."""
    found = "spikingjelly.activation_based"
    layer, neurons = (import_module(f"{found}.{name}") for name in ("layer", "neuron"))
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        neurons.LIFNode(tau=2.5),
        getattr(layer, pool)(2),
        layer.Conv2d(4, 6, 3),
        layer.BatchNorm2d(6),
        neurons.IFNode(),
        layer.Flatten(),
        layer.Linear(24, 10),
        neurons.LIFNode(decay_input=False),
    )
    import_module(f"{found}.functional").set_step_mode(net, "m")
    return net


def jelly_averaged() -> nn.Module:
    return jelly_batchnorm("AvgPool2d")


def jelly_currents() -> nn.Module:
    """Without neurons behind the last layer."""
    return cast(nn.Sequential, jelly_averaged())[:-1]


def jelly_negative() -> nn.Module:
    """A pool before its BatchNorm, which turns a channel over."""
    net: Any = jelly_batchnorm()
    return nn.Sequential(net[0], net[3], net[1], net[2], *net[4:])


def jelly_exact() -> nn.Module:
    """Weights and thresholds that are whole numbers of 1/64, and no leak."""
    found = "spikingjelly.activation_based"
    layer, neurons = (import_module(f"{found}.{name}") for name in ("layer", "neuron"))
    net = nn.Sequential(
        layer.Conv2d(1, 4, 3, padding=1, bias=True),
        neurons.IFNode(),
        layer.Flatten(),
        layer.Linear(256, 10, bias=False),
        neurons.IFNode(v_threshold=2.0),
    )
    drawn = torch.Generator().manual_seed(0)
    for tensor in net.parameters():
        tensor.data = torch.randint(-40, 44, tensor.shape, generator=drawn) / 64
        tensor.data.view(-1)[0] = 127 / 64  # 254 on Loihi
    import_module(f"{found}.functional").set_step_mode(net, "m")
    return net


def jelly_strided() -> nn.Module:
    """Groups, a stride and dilation."""
    net: Any = jelly_averaged()
    layer = import_module("spikingjelly.activation_based.layer")
    net[0] = layer.Conv2d(1, 4, (3, 2), padding=(1, 0), bias=True, step_mode="m")
    net[3] = layer.MaxPool2d(3, stride=2, padding=1, step_mode="m")
    net[4] = layer.Conv2d(4, 6, 3, stride=(1, 2), dilation=(1, 1), groups=2, step_mode="m")
    net[8] = layer.Linear(12, 10, step_mode="m")
    return cast(nn.Module, net)


def jelly_maxpool() -> nn.Module:
    return _jelly("MaxPool2d")


def jelly_soft() -> nn.Module:
    return _jelly(v_reset=None)


def jelly_loop() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = _jelly()

        def forward(self, x: Tensor) -> Tensor:
            return sum((self.layers(x) for _ in range(2)), start=self.layers(x))

    return Net()


def jelly_residual() -> nn.Module:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            lif = import_module("spikingjelly.activation_based.neuron").LIFNode
            self.fc1, self.lif1, self.fc2, self.lif2 = _dense(lif)

        def forward(self, x: Tensor) -> Tensor:
            spikes = self.lif1(self.fc1(x))
            found: Tensor = self.lif2(self.fc2(spikes) + spikes)
            return found

    return Net()


def jelly_groups() -> nn.Module:
    net: Any = _jelly()
    net[0].groups, net[0].in_channels = 2, 2
    net[0].weight.data = torch.rand(4, 1, 3, 3)
    return nn.Sequential(nn.Conv2d(1, 2, 1), *net)


# sinabs


def _sinabs(name: str, **how: Any) -> nn.Module:
    neuron: nn.Module = getattr(import_module("sinabs.layers"), name)(**how)
    return neuron


def sinabs_iaf() -> nn.Module:
    return _convolutional(bias=False, neurons=lambda: _sinabs("IAFSqueeze", batch_size=1))


def sinabs_pooled() -> nn.Module:
    pool = _sinabs("SumPool2d", kernel_size=2)
    return _convolutional(pool, neurons=lambda: _sinabs("IAFSqueeze", num_timesteps=2))


def sinabs_lif() -> nn.Module:
    """Vectors (N, T, 64)."""
    return nn.Sequential(*_dense(lambda: _sinabs("LIF", tau_mem=20.0)))


def sinabs_average() -> nn.Module:
    return _convolutional(nn.AvgPool2d(2), neurons=lambda: _sinabs("IAFSqueeze", batch_size=1))


def sinabs_maxpool() -> nn.Module:
    return _convolutional(nn.MaxPool2d(2), neurons=lambda: _sinabs("IAFSqueeze", batch_size=1))


# norse


def _norse(cell: str) -> nn.Module:
    found = import_module("norse.torch")
    net: nn.Module = found.SequentialState(*_dense(getattr(found, cell)))
    return net


def norse_lif() -> nn.Module:
    return _norse("LIFCell")


def norse_box() -> nn.Module:
    return _norse("LIFBoxCell")


def norse_iaf() -> nn.Module:
    return _norse("IAFCell")


def norse_over_time() -> nn.Module:
    """Vectors (T, N, 64)."""
    return _norse("LIF")


def norse_flatten() -> nn.Module:
    found = import_module("norse.torch")
    net: nn.Module = found.SequentialState(
        nn.Conv2d(1, 4, 3), found.LIFCell(), nn.Flatten(), nn.Linear(144, 10), found.LIFCell()
    )
    return net


# neurons of no library


class Changed(nn.Module):
    """A network of own neurons, and what is done before and after it."""

    def __init__(
        self,
        before: Callable[[Tensor], Tensor] = torch.Tensor.clone,
        after: Callable[[Tensor], Tensor] = torch.Tensor.clone,
    ) -> None:
        super().__init__()
        self.layers = own_neurons()
        self.before, self.after = before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.layers(self.before(x)))


def noisy() -> nn.Module:
    return Changed(before=lambda x: 8 * (torch.rand_like(x) < x).to(x.dtype))


def drawn_in_vain() -> nn.Module:
    return Changed(before=lambda x: x * (torch.rand_like(x) < 2))


def otherwise_compiled() -> nn.Module:
    return Changed(after=lambda z: 2 * z if torch.compiler.is_compiling() else z)


def own_neurons() -> nn.Module:
    class Step(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x > 0.5).to(x.dtype)

    return nn.Sequential(*_dense(Step))


def depends_on_data() -> nn.Module:
    class Sparse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = own_neurons()

        def forward(self, x: Tensor) -> Tensor:
            spikes: Tensor = self.layers(x if float(x.sum()) > 0 else 2 * x)
            return spikes

    return Sparse()


def vectors() -> list[Tensor]:
    return [torch.rand(2, 64)]


def frames() -> list[Tensor]:
    """(N or T, 2, 64)"""
    return [torch.rand(3, 2, 64)]


def images() -> list[Tensor]:
    return [torch.rand(2, 1, 8, 8)]


def whole_images() -> list[Tensor]:
    """(N * T, C, H, W), 0 or 1."""
    return [films_of_spikes.flatten(0, 1)[:4] for films_of_spikes in spiking_films()]


def spiking_films() -> list[Tensor]:
    """(T, N, C, H, W), 0 or 1."""
    drawn = torch.Generator().manual_seed(0)
    return [(torch.rand(6, 5, 1, 8, 8, generator=drawn) < 0.4).float()]


def films() -> list[Tensor]:
    """(T, N, C, H, W)"""
    return [torch.rand(3, 2, 1, 8, 8)]
