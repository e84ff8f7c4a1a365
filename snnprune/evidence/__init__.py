"""Where and why a pruned network fires differently: what a report shows layer by layer."""

from snnprune.evidence.crisis import Crisis, crises
from snnprune.evidence.membranes import Membrane, membranes
from snnprune.evidence.scores import ScoreHistogram, score_histogram

__all__ = ["Crisis", "Membrane", "ScoreHistogram", "crises", "membranes", "score_histogram"]
