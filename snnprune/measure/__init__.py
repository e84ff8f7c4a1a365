"""What one pass over data finds out about a network.

Here are the quantities that it is told in, numbers and the range that they are in; the schema of
the reports has it from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

if TYPE_CHECKING:
    from snnprune.measure.workload import LayerWork

Natural = Annotated[int, Ge(0)]
"""A count."""
Share = Annotated[float, Ge(0), Le(1)]
"""A part of a whole, a rate or a chance."""
InputValues = Literal["binary", "counts", "analog"]
"""0 or 1; whole numbers from 0 up; anything else."""
ENERGY_MAC, ENERGY_AC = 4.6, 0.9
"""pJ of an operation on 32-bit floats at 45 nm (Horowitz 2014, Computing's energy problem)"""


@dataclass(frozen=True, kw_only=True)
class Energy:
    """What an operation takes, in pJ.

    Of arithmetic alone: reading weights from memory may well take more.
    """

    mac: float = ENERGY_MAC
    ac: float = ENERGY_AC

    def of(self, work: LayerWork) -> float:
        """Of all effective operations, in pJ."""
        return work.macs * self.mac + work.acs * self.ac
