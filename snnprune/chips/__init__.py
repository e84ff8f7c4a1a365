"""The chips that there are: a YAML file each, and files of one's own. Imports no torch."""

import os
from pathlib import Path

from snnprune.chips.description import Chip, Core, Limits
from snnprune.errors import InputError, did_you_mean
from snnprune.recipe.loading import read_settings, validate_settings


def builtin_chips() -> dict[str, Path]:
    """The file of each built-in chip, by name."""
    folder = Path(__file__).parent
    return {path.stem: path for path in sorted(folder.glob("*.yaml"), key=lambda p: p.stem)}


def find_chip(source: str) -> Path:
    """The file of a chip, by the name of a built-in or by its path.

    Raises:
        InputError: there is none.
    """
    builtin = builtin_chips()
    if source in builtin:
        return builtin[source]
    if not os.path.lexists(source):  # of any text, also what no file can be called
        name = source.removesuffix(".yaml").removesuffix(".yml")
        raise InputError("no such chip", file=source, hint=did_you_mean(name, builtin))
    return Path(source)


def load_chip(source: str) -> Chip:
    """Read and check a chip, by the name of a built-in or by the path of a YAML file.

    Raises:
        InputError: there is none, or its file cannot be read.
        RecipeError: what the file says is wrong; one line for each problem.
    """
    path = find_chip(source)
    return validate_settings(str(path), read_settings(path), Chip, begin_with="title:")


__all__ = ["Chip", "Core", "Limits", "builtin_chips", "find_chip", "load_chip"]
