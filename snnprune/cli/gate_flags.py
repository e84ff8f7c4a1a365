"""Flags for limits that a network must keep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.errors import UsageError
from snnprune.jobs.options import Options
from snnprune.report.gates.gate import Limit
from snnprune.report.gates.gates import GATES, read_limits

if TYPE_CHECKING:
    from snnprune.measure.workload import Energy


PANEL = "Gates: exit code 4 if one is not met"


def _make_option(name: str, metavar: str) -> typer.models.OptionInfo:
    gate = GATES[name]
    option = typer.Option(gate.flag, metavar=metavar, help=gate.help, rich_help_panel=PANEL)
    assert isinstance(option, typer.models.OptionInfo)
    return option


@dataclass(frozen=True, kw_only=True)
class GateFlags(Options):
    """All gates but `--max-accuracy-drop`, which `prune` also looks for a sparsity by."""

    min_sparsity: Annotated[str | None, _make_option("min-sparsity", "S")] = None
    max_sparsity: Annotated[str | None, _make_option("max-sparsity", "S")] = None
    max_layer_sparsity: Annotated[str | None, _make_option("max-layer-sparsity", "S")] = None
    min_accuracy: Annotated[str | None, _make_option("min-accuracy", "A")] = None
    min_spike_agreement: Annotated[str | None, _make_option("min-spike-agreement", "S")] = None
    max_synops: Annotated[str | None, _make_option("max-synops", "N")] = None
    max_energy: Annotated[str | None, _make_option("max-energy", "PJ")] = None
    max_size: Annotated[str | None, _make_option("max-size", "BYTES")] = None
    max_dead: Annotated[str | None, _make_option("max-dead", "N|P%")] = None
    junit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Gates as JUnit XML too.", rich_help_panel=PANEL, readable=False
        ),
    ] = None

    def check(self) -> None:
        """Refuse what is no limit."""
        self.limits()

    def limits(self, drop: str | None = None) -> tuple[Limit, ...]:
        """The gates that are set; `drop` is that of `--max-accuracy-drop`."""
        written = {name: getattr(self, name.replace("-", "_"), None) for name in GATES}
        return read_limits({**written, "max-accuracy-drop": drop})


@dataclass(frozen=True, kw_only=True)
class EnergyFlags(Options):
    """What an operation is taken to cost."""

    energy_mac: Annotated[
        float, typer.Option(metavar="PJ", min=0, help="Of a multiply-accumulate.")
    ] = 4.6
    energy_ac: Annotated[float, typer.Option(metavar="PJ", min=0, help="Of an accumulate.")] = 0.9

    def check(self) -> None:
        """Refuse what is no energy."""
        for flag, each in (("--energy-mac", self.energy_mac), ("--energy-ac", self.energy_ac)):
            if not math.isfinite(each):
                raise UsageError(f"{each:g} is no energy", field=flag)

    def energy(self) -> Energy:
        """The same for the job."""
        from snnprune.measure.workload import Energy

        return Energy(mac=self.energy_mac, ac=self.energy_ac)
