"""`chips`: list, show and copy the chips that there are; and the table of how one fits.

Imports no torch.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from snnprune.cli.options import ShowOptions, expand_options
from snnprune.errors import format_count, layer_name, make_printable

if TYPE_CHECKING:
    from rich.table import Table

    from snnprune.chips.check import ChipFit, LayerFit
    from snnprune.chips.rules import Misfit

app = typer.Typer(help="List, show and copy chips, which --chip names.", no_args_is_help=True)


@app.command("ls")
@expand_options
def ls(show: ShowOptions) -> None:
    """List the built-in chips."""
    from snnprune.chips import builtin_chips, load_chip
    from snnprune.cli.console import Screen

    paths = builtin_chips()
    firsts = {name: path.read_text("utf-8").splitlines()[0] for name, path in paths.items()}
    lines = [f"{name:14} {first.lstrip('# ')}" for name, first in firsts.items()]
    chips = [{"name": name, **load_chip(name).model_dump(mode="json")} for name in paths]
    Screen(show).result(*lines, report={"ok": True, "command": "chips ls", "chips": chips})


@app.command("show")
@expand_options
def show_chip(
    chip: Annotated[str, typer.Argument(help="Built-in name or YAML file.")], show: ShowOptions
) -> None:
    """Print a chip's file, once it is checked."""
    from snnprune.chips import find_chip, load_chip
    from snnprune.cli.console import Screen

    found = load_chip(chip)
    text = find_chip(chip).read_text(encoding="utf-8")
    chips = [{"name": chip, **found.model_dump(mode="json")}]
    report = {"ok": True, "command": "chips show", "chips": chips}
    Screen(show).result(*text.splitlines(), report=report)


@app.command()
def cp(
    name: Annotated[str, typer.Argument(help="Built-in name.")],
    target: Annotated[
        Path, typer.Argument(help="The new file, or a folder for it.", readable=False)
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Copy a built-in chip, to change it."""
    from snnprune.chips import find_chip
    from snnprune.files.writing import require_free, write_text

    source = find_chip(name)
    path = target / source.name if target.is_dir() else target
    require_free(path, force=force)
    write_text(path, source.read_text(encoding="utf-8"))
    print(f"wrote {make_printable(str(path))}")


def make_chip_table(fit: "ChipFit", width: int) -> "Table":
    """A row for each layer: what it takes of the chip, and where it lies."""
    from rich.text import Text

    from snnprune.cli.tables import break_name, make_plain_table

    table = make_plain_table()
    table.add_column("layer")
    for title in ("held as", "weights", "neurons", "biases", "fan-in", "bits", "cores"):
        table.add_column(title, justify="right")
    table.add_column("")
    for one in fit.layers:
        sign, style = ("fits", "green") if one.fits else ("NO", "bold red")
        name = break_name(make_printable(layer_name(one.layer)), max(width - 70, 16))
        table.add_row(Text(name), *map(Text, _format_cells(one)), Text(sign, style=style))
    return table


def _format_cells(one: "LayerFit") -> tuple[str, ...]:
    return (
        one.held,
        f"{one.weights:,}",
        f"{one.neurons:,}",
        f"{one.biases:,}",
        f"{one.fan_in:,}",
        "float" if one.bits is None else str(one.bits),
        _format_cores(one.cores),
    )


def _format_cores(cores: tuple[int, ...]) -> str:
    if not cores:
        return "-"
    return str(cores[0]) if len(cores) == 1 else f"{cores[0]}-{cores[-1]}"


def format_chip_lines(fit: "ChipFit") -> list[str]:
    """What does not fit and what would mend it, what is told beside, and the outcome."""
    lines = [*_iter_misfit_lines(fit.misfits)]
    lines += [f"{fit.chip}: {remark}" for remark in fit.remarks]
    used = f"{fit.cores_needed:,} of {fit.cores:,} cores"
    count = format_count(len(fit.misfits), "thing")
    outcome = f"fits on {used}" if fit.fits else f"does not fit: {count} to mend"
    return [make_printable(line, None) for line in (*lines, f"{fit.title}: {outcome}")]


def _iter_misfit_lines(misfits: Iterable["Misfit"]) -> Iterable[str]:
    """One line for each thing, with all layers that it is about."""
    layers: dict[tuple[str, str | None], list[str]] = {}
    for one in misfits:
        where = "the network" if one.layer is None else layer_name(one.layer)
        layers.setdefault((one.message, one.change), []).append(where)
    for (message, change), names in layers.items():
        mend = f". To mend it: {change}" if change else ""
        yield f"{', '.join(names)}: {message}{mend}"
