"""`recipes`: list, show, copy and check training recipes. Imports no torch."""

from pathlib import Path
from typing import Annotated

import typer

from snnprune.cli.completion import make_completer
from snnprune.errors import make_printable

RecipeArgument = Annotated[
    str,
    typer.Argument(help="Built-in name or YAML file.", autocompletion=make_completer("recipe")),
]
app = typer.Typer(help="List, show, copy and check training recipes.", no_args_is_help=True)


@app.command("ls")
def ls() -> None:
    """List the built-in recipes."""
    from snnprune.recipe.loading import builtin_recipes

    for name, path in builtin_recipes().items():
        first = path.read_text(encoding="utf-8").splitlines()[0]
        typer.echo(f"{name:20} {first.lstrip('# ')}")


@app.command()
def show(recipe: RecipeArgument) -> None:
    """Print a recipe; which code it names goes to stderr."""
    from snnprune.jobs.consent import find_code, format_code
    from snnprune.recipe.loading import MAX_BYTES, load_recipe, read_source

    code = find_code(load_recipe(recipe))  # what is shown is YAML and text
    _, data = read_source(recipe)
    for line in data.decode().splitlines():
        typer.echo(make_printable(line, MAX_BYTES))
    if code:
        typer.echo(make_printable(format_code(code)), err=True)


@app.command()
def cp(
    name: Annotated[
        str, typer.Argument(help="Built-in name.", autocompletion=make_completer("recipe"))
    ],
    target: Annotated[
        Path, typer.Argument(help="The new file, or a folder for it.", readable=False)
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
) -> None:
    """Copy a built-in recipe, to change it."""
    from snnprune.files.writing import require_free, write_text

    path = target / f"{Path(name).stem}.yaml" if target.is_dir() else target
    text = _read_text(name)
    require_free(path, force=force)
    write_text(path, text)
    print(f"wrote {make_printable(str(path))}")


@app.command()
def validate(recipe: RecipeArgument) -> None:
    """Check a recipe, without running anything of it."""
    from snnprune.errors import make_printable
    from snnprune.jobs.consent import find_code, format_code, require_consent
    from snnprune.jobs.train.recipes import name_file_in_errors, require_names
    from snnprune.recipe.loading import load_recipe

    found = load_recipe(recipe, run=("gradual", "imp", "search", "finetune"))
    with name_file_in_errors(recipe):
        require_names(found)
    code = find_code(found)
    require_consent(code, file=recipe, trusted=True)  # Python's own is called for nobody
    print(f"{make_printable(recipe)} is a valid recipe")
    if code:
        print(make_printable(f"{format_code(code)}: --trust-recipe runs it"))


def _read_text(name: str) -> str:
    from snnprune.errors import InputError
    from snnprune.recipe.loading import builtin_recipes

    known = builtin_recipes()
    path = known.get(Path(name).stem)
    if path is None:
        raise InputError("no such recipe", file=name, hint=f"built-ins are {', '.join(known)}")
    return path.read_text(encoding="utf-8")
