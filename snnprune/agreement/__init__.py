"""How alike two networks of one architecture are: weights, spikes, outputs, answers."""

from snnprune.agreement.counts import Agreement, Answers, Outputs, Spikes
from snnprune.agreement.passes import agreement, agreements
from snnprune.agreement.report import about_agreement
from snnprune.agreement.weights import Change, change, together

__all__ = [
    "Agreement",
    "Answers",
    "Change",
    "Outputs",
    "Spikes",
    "about_agreement",
    "agreement",
    "agreements",
    "change",
    "together",
]
