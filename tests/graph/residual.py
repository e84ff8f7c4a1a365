"""The links of an 18-layer residual network, read off its code."""

import itertools

from zoo import Links


def residual_links(*, spiking: bool) -> Links:
    """All links of a ResNet-18.

    A spiking ResNet adds currents in front of a neuron, a SEW ResNet spikes behind it.
    """
    sums = ["add"] if spiking else []
    found: Links = {"conv1": (["sn1"], ["bn1"], [], True)}
    for stage, block in itertools.product(range(1, 5), range(2)):
        at = f"layer{stage}.{block}"
        found[f"{at}.conv1"] = ([f"{at}.sn1"], [f"{at}.bn1"], [], False)
        found[f"{at}.conv2"] = ([f"{at}.sn2"], [f"{at}.bn2"], sums, False)
        if stage > 1 and block == 0:
            into = f"{at}.sn2" if spiking else f"{at}.downsample_sn"
            found[f"{at}.downsample.0"] = ([into], [f"{at}.downsample.1"], sums, False)
    return {**found, "fc": ([], [], [], False)}
