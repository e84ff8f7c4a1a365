"""Pruning a trained network at once: score, share out, cut, repair; in one step or several."""

from snnprune.one_shot.one_shot import OneShot
from snnprune.one_shot.plan import Plan, PrunePlan

__all__ = ["OneShot", "Plan", "PrunePlan"]
