"""What `theory crisis` found, as parts of a report."""

from __future__ import annotations

from typing import Any

from snnprune.theory.accumulation import Accumulated
from snnprune.theory.crisis import Crisis
from snnprune.theory.moving import Moved


def about_crisis(one: Crisis) -> dict[str, Any]:
    """For a report, by channel."""
    return {
        "layer": one.layer,
        "neuron": one.neuron,
        "error": one.error.tolist(),
        "radius": one.radius.tolist(),
        "density_gaussian": one.densities.gaussian.tolist(),
        "density_counted": one.densities.counted.tolist(),
        "estimate": one.compute_estimate().tolist(),
        "estimate_counted": one.compute_counted().tolist(),
        "near": one.near.tolist(),
        "bound": one.bound.tolist(),
        "correlation": one.compute_correlation(),
        "followed": one.followed,
        "moved": about_moved(one.moved),
    }


def about_moved(one: Moved) -> dict[str, list[float]]:
    """The same of what membranes did."""
    values = {name: value.tolist() for name, value in vars(one).items() if name != "reach"}
    return values | {"furthest": one.compute_furthest().tolist()}


def about_accumulated(one: Accumulated) -> dict[str, Any]:
    """For a report, by time step."""
    return {
        "neuron": one.neuron,
        "flipped": one.flipped.tolist(),
        "hit": one.hit.tolist(),
        "near": None if one.near is None else one.near.tolist(),
        "bound": None if one.bound is None else one.bound.tolist(),
    }
