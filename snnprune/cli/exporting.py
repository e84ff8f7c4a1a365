"""`export`: the same weights in another file."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.flags import ReportFlag, ShowFlags
from snnprune.cli.options import expand_options
from snnprune.jobs.subjects.options import NetworkOptions, SubjectOptions
from snnprune.readable import require_readable


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
    from snnprune.cli.size_tables import size_table
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
            subject=SubjectOptions(
                **vars(network), checkpoint=checkpoint, state_dict=state_dict, device="cpu"
            ),
        )
    )
    line = f"wrote {out} ({found.written:,} bytes)"
    screen.result(size_table(found.sizes, values), line, report=found.report)
