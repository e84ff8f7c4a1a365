"""Networks that only SpikingJelly 2.x has, and a time loop of the user's own."""

from typing import Any

import torch
from behaviour import Behaviour, Networks, cases_of, made_of
from spikingjelly.activation_based import neuron
from spikingjelly.activation_based.model import ms_resnet, spikformer
from spikingjelly_networks import LIF, OWN_LOOP, OWN_LOOP_LINKS, STEPS, multi_step
from torch import nn
from zoo import Links, images, seen

from snnprune.graph.trace import trace

PICTURES = images(2, 3, 32, 32)


def transformer() -> nn.Module:
    made: nn.Module = spikformer.Spikformer(
        T=2,
        img_size_h=32,
        img_size_w=32,
        num_classes=10,
        embed_dims=32,
        num_heads=4,
        mlp_ratio=2,
        depths=1,
        spiking_neuron=neuron.LIFNode,
        v_threshold=0.1,
        **LIF,
    )
    return made


def ms18() -> nn.Module:
    made = ms_resnet.ms_resnet18(T=2, num_classes=10, spiking_neuron=neuron.LIFNode, **LIF)
    return multi_step(made)


def transformer_links() -> Links:
    """All links of a Spikformer, read off its code."""
    stem: Links = {
        f"patch_embed.stages.{at}.conv_bn.block.0": (
            [f"patch_embed.stages.{at}.neuron"],
            [f"patch_embed.stages.{at}.conv_bn.block.1"],
            ["max_pool2d"],
            at == 0,
        )
        for at in range(4)
    }
    position = "patch_embed.positional_encoding"
    drives = {
        "attn.qkv_conv_bn": "attn.qkv_lif",
        "attn.proj_conv_bn": "attn.proj_lif",
        "mlp.fc1": "mlp.neuron1",
        "mlp.fc2": "mlp.neuron2",
    }
    return {
        **stem,
        f"{position}.conv_bn.block.0": (
            [f"{position}.neuron"],
            [f"{position}.conv_bn.block.1"],
            [],
            False,
        ),
        **{
            f"blocks.0.{conv}.0": ([f"blocks.0.{spikes}"], [f"blocks.0.{conv}.1"], [], False)
            for conv, spikes in drives.items()
        },
        "head": ([], [], [], False),
    }


def ms_links() -> Links:
    """All links of an MS-ResNet-18, read off its code.

    Its residual path is of currents: what a block adds to it reaches the neuron in front of every
    block until the path goes through a layer again, which is the first block of the next stage.
    """
    found: Links = {"stem.0": (["layer1.0.spike1"], ["stem.1"], [], True)}
    for stage in range(1, 5):
        first, second = f"layer{stage}.0", f"layer{stage}.1"
        behind = "head_lif" if stage == 4 else f"layer{stage + 1}.0.spike1"
        both = [f"{second}.spike1", behind]
        for block in (first, second):
            found[f"{block}.conv1"] = ([f"{block}.spike2"], [f"{block}.bn1"], [], False)
        found[f"{first}.conv2"] = (both, [f"{first}.bn2"] * 2, ["add"] * 2, False)
        found[f"{first}.downsample.0"] = (
            both,
            [f"{first}.downsample.1"] * 2,
            ["add"] * 2,
            stage == 1,  # it takes the current of the stem, which no neuron is in front of
        )
        found[f"{second}.conv2"] = ([behind], [f"{second}.bn2"], ["add"], False)
    return {**found, "head": ([], [], [], False)}


NETWORKS: Networks = {
    "spikformer": (transformer, PICTURES),
    "ms_resnet18": (ms18, PICTURES),
    **OWN_LOOP,
}
LINKS: dict[str, Links] = {
    "spikformer": transformer_links(),
    "ms_resnet18": ms_links(),
    **OWN_LOOP_LINKS,
}

case = cases_of(NETWORKS, LINKS)


class TestBehaviour(Behaviour):
    pass


def test_attention_is_driven_by_a_product_of_spikes_and_by_no_layer() -> None:
    attention = trace(*made_of(NETWORKS, "spikformer")).neurons["blocks.0.attn.attn_lif"]
    assert (attention.feeders, attention.identities) == ((), ("blocks.0.attn.qkv_lif",))


@torch.no_grad()
def test_the_membrane_in_a_users_own_time_loop_equals_an_independent_simulation() -> None:
    module: Any
    module, x = made_of(NETWORKS, "single step")
    current = module.bn1(module.conv1(x)).double()
    v, expected = torch.zeros_like(current), []
    for _ in range(STEPS):  # tau 3, plain input, soft reset at 1
        u = v - v / 3 + current
        v = u - (u >= 1).double()
        expected.append(u - 1)
    membranes, spikes = seen(trace(module, x), x)
    simulated = torch.stack(expected)
    torch.testing.assert_close(membranes["spikes1"].double(), simulated, rtol=0, atol=1e-5)
    fired = (simulated >= 0).double().flatten(0, 1)  # as the steps put them out, one by one
    assert torch.equal(spikes["spikes1"].double(), fired)
