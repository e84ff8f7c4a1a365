"""`inspect`, `calibrate` and `eval`: commands that look at a checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.comparing import SplitFlag, require_split
from snnprune.cli.flags import (
    HOLD_OUT,
    PANEL,
    EnergyFlags,
    GateFlags,
    ReadoutFlag,
    ReportFlag,
    ReportFlags,
    ShowFlags,
    StrictFlag,
)
from snnprune.cli.options import expand_options
from snnprune.files.readable import require_readable
from snnprune.jobs.targets.options import (
    DeviceOptions,
    MeasuredOptions,
    NetworkOptions,
    TargetOptions,
)
from snnprune.report.gates.gates import GATES


@expand_options
def env(show: ShowFlags) -> None:
    """Show versions, devices and paths."""
    from snnprune.cli.console import Screen
    from snnprune.jobs.environment import collect_environment

    found = collect_environment()
    width = max(map(len, found))
    lines = [f"{name:{width}}  {value}" for name, value in found.items()]
    Screen(show).result(*lines, report={"ok": True, **found})


DROP = GATES["max-accuracy-drop"]


@expand_options
def check(
    target: MeasuredOptions,
    show: ShowFlags,
    gates: GateFlags,
    page: ReportFlags,
    energy: EnergyFlags,
    max_accuracy_drop: Annotated[
        str | None,
        typer.Option(DROP.flag, metavar="POINTS", help=DROP.help, rich_help_panel=PANEL),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The checkpoint before pruning, for drop and agreement.",
            rich_help_panel=PANEL,
            readable=False,
        ),
    ] = None,
    sha256: Annotated[
        str | None,
        typer.Option(
            metavar="HASH|FILE",
            help="What CKPT must be to the bit: its hash, or a list such as SHA256SUMS.",
        ),
    ] = None,
    split: SplitFlag = None,
    readout: ReadoutFlag = "auto",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Hold a checkpoint against limits; exit code 4 if one is not kept."""
    require_split(split)
    limits = gates.limits(max_accuracy_drop)
    if baseline is not None:
        require_readable(baseline)
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import format_gate_lines, make_gate_table
    from snnprune.cli.tables import format_excluded_lines
    from snnprune.jobs.check import CheckOptions, check_checkpoint

    screen = Screen(show, report=page.report, force=page.force, junit=gates.junit)
    options = CheckOptions(
        target=replace(target, readout=readout),
        limits=limits,
        baseline=baseline,
        sha256=sha256,
        split=split,
        samples=samples,
        energy=energy.energy(),
        junit=gates.junit,
        force=page.force,
    )
    found = check_checkpoint(options, screen.progress())
    same = [] if sha256 is None else ["its SHA-256 is the one that was given"]
    tables = [make_gate_table(found.verdicts, screen.width)] if found.verdicts else []
    lines = [*same, *format_excluded_lines(found.report), *format_gate_lines(found.verdicts)]
    screen.result(*tables, *lines, report=found.report)
    if found.error is not None:
        raise found.error


@expand_options
def export(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CKPT", help="A .safetensors (or its index), .pth or .nir.", readable=False
        ),
    ],
    network: NetworkOptions,
    show: ShowFlags,
    to: Annotated[
        str,
        typer.Option(metavar="NAME", help="packed, dense, pth, csr, nir or onnx."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="Where it goes.", readable=False)
    ],
    values: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Of packed weights: exact, float32, float16, bfloat16 or int8 with a scale for "
            "each output channel.",
        ),
    ] = "exact",
    state_dict: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Which dict of a torch file that holds several."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    report: ReportFlag = None,
) -> None:
    """Write a checkpoint without its zeros, or for other programs; says what each kind weighs."""
    require_readable(checkpoint)
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import make_size_table
    from snnprune.jobs.export import ExportOptions, export_checkpoint

    screen = Screen(show, report=report, force=force)
    found = export_checkpoint(
        ExportOptions(
            checkpoint=checkpoint,
            to=to,
            out=out,
            values=values,
            state_dict=state_dict,
            force=force,
            target=TargetOptions(
                **vars(network), checkpoint=checkpoint, state_dict=state_dict, device="cpu"
            ),
        )
    )
    line = f"wrote {out} ({found.written:,} bytes)"
    screen.result(make_size_table(found.sizes, values), line, report=found.report)


@expand_options
def demo(
    run: DeviceOptions,
    show: ShowFlags,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for everything it makes.", readable=False)
    ] = Path("snnprune-demo"),
    force: Annotated[bool, typer.Option("--force", help="Replace an existing folder.")] = False,
) -> None:
    """Train, calibrate, prune, repair and evaluate on bundled images."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import make_demo_table
    from snnprune.jobs.demo import DemoOptions, run_demo

    screen = Screen(show)
    options = DemoOptions(out=out, seed=run.seed, device=run.device, force=force)
    found = run_demo(options, screen.progress())
    lines = [
        f"dense accuracy {found.dense.accuracy:.2%} ({found.dense.labelled:,} test images, "
        f"{found.minutes:.1f} minutes in all)",
        f"wrote {out}: report.html, report.md, report.json, accuracy.png, accuracy.svg, table.md, "
        "training/, pruned/",
    ]
    screen.result(make_demo_table(found.points), *lines, report=found.report)


@expand_options
def inspect(target: TargetOptions, show: ShowFlags) -> None:
    """Show what is in a checkpoint. Runs no code of the file."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import (
        format_excluded_lines,
        format_neuron_line,
        format_sparsity_line,
        format_unused_lines,
        make_layer_table,
        make_link_table,
        make_neuron_table,
    )
    from snnprune.jobs.inspect import inspect_checkpoint

    screen = Screen(show)
    found = inspect_checkpoint(target)
    lines = [
        f"{found.checkpoint.container}, {len(found.checkpoint.tensors):,} tensors, "
        f"{len(found.skipped):,} of them not prunable",
        format_sparsity_line(found.totals),
        *format_excluded_lines(found.report),
        *(f"not prunable: {key}, made by {how}" for key, how in found.made.items()),
        *format_unused_lines(found.report),
    ]
    tables = [make_layer_table(found.rows, screen.width)]
    if found.unlinked is None:
        tables.append(make_link_table(found.rows, screen.width))
        tables.append(make_neuron_table(found.report["neurons"], screen.width))
        lines.append(format_neuron_line(found.report["neurons"]))
    else:
        lines.append(f"links not known: {found.unlinked}")
    screen.result(*tables, *lines, report=found.report)


@expand_options
def calibrate(
    target: TargetOptions,
    show: ShowFlags,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Where the statistics go.", readable=False
        ),
    ],
    samples: Annotated[
        int, typer.Option(metavar="N", min=1, help="Training images to look at.")
    ] = 1024,
    strict: StrictFlag = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    report: ReportFlag = None,
) -> None:
    """Take firing rates and membrane statistics for later runs."""
    from snnprune.cli.console import Screen
    from snnprune.cli.tables import format_excluded_lines, make_layer_table
    from snnprune.jobs.calibrate import calibrate_checkpoint

    screen = Screen(show, report=report, force=force)
    found = calibrate_checkpoint(
        replace(target, samples=samples, strict=strict, hold_out=HOLD_OUT),
        out,
        force=force,
        progress=screen.progress(),
    )
    line = f"wrote {out} ({found.calibration.samples:,} images, T = {found.calibration.time_steps})"
    lines = [*format_excluded_lines(found.report), line]
    screen.result(make_layer_table(found.rows, screen.width), *lines, report=found.report)


@expand_options
def evaluate(
    target: MeasuredOptions,
    show: ShowFlags,
    energy: EnergyFlags,
    page: ReportFlags,
    split: SplitFlag = None,
    readout: ReadoutFlag = "auto",
    samples: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images; all by default.")
    ] = None,
) -> None:
    """Measure accuracy, loss, firing rates, sparsity, synaptic operations and energy."""
    from snnprune.cli.console import Screen
    from snnprune.cli.prune_tables import format_work_lines, make_work_table
    from snnprune.cli.tables import (
        format_accuracy_line,
        format_excluded_lines,
        format_sparsity_line,
        make_firing_table,
    )
    from snnprune.jobs.evaluate import evaluate_checkpoint

    require_split(split)
    screen = Screen(show, report=page.report, force=page.force)
    found = evaluate_checkpoint(
        replace(target, readout=readout),
        split=split,
        limit=samples,
        energy=energy.energy(),
        progress=screen.progress(),
    )
    screen.result(
        make_firing_table(found.evaluation),
        make_work_table(found, screen.width),
        format_sparsity_line(found.totals),
        *format_excluded_lines(found.report),
        *format_work_lines(found),
        format_accuracy_line(found.evaluation),
        report=found.report,
    )
