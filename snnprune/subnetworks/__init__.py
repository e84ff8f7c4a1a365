"""Sub-networks of random networks, found without training a weight (edge-popup).

Ramanujan et al. 2020, arXiv 1911.13299; section 5 of Yao et al. 2023, arXiv 2305.12148.
"""

from snnprune.subnetworks.drawing import WeightDraw
from snnprune.subnetworks.subnetwork import Subnetwork, searching

__all__ = ["Subnetwork", "WeightDraw", "searching"]
