"""The names that flags take, for a shell in which somebody presses Tab. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping

Completer = Callable[[str], list[str]]

VARIABLE = "_SNNPRUNE_COMPLETE"
"""Set by the shell that asks what fits."""


def _list_recipes() -> Iterable[str]:
    from snnprune.recipe.loading import builtin_recipes

    return builtin_recipes()


def _list_criteria() -> Iterable[str]:
    from snnprune.pruning.criteria import CRITERIA

    return CRITERIA.names()


def _list_allocations() -> Iterable[str]:
    from snnprune.pruning.allocation import ALLOCATIONS

    return ALLOCATIONS.names()


def _list_repairs() -> Iterable[str]:
    from snnprune.pruning.repair import REPAIRS

    return REPAIRS.names()


def _list_models() -> Iterable[str]:
    from snnprune.models import MODELS

    return MODELS.names()


def _list_data() -> Iterable[str]:
    from snnprune.data import DATA, FORMS

    return (*DATA.names(), *(f"{form}:" for form in FORMS))


def _list_forwards() -> Iterable[str]:
    from snnprune.plugins.names import REPEAT, STEPS, WHOLE

    return WHOLE, STEPS, f"{REPEAT}:"


def _list_readouts() -> Iterable[str]:
    from snnprune.plugins.names import READOUTS

    return READOUTS


def _list_formats() -> Iterable[str]:
    from snnprune.export import FORMATS

    return FORMATS


NAMES: Mapping[str, Callable[[], Iterable[str]]] = {
    "criterion": _list_criteria,
    "allocation": _list_allocations,
    "repair": _list_repairs,
    "model": _list_models,
    "data": _list_data,
    "test-data": _list_data,
    "eval-data": _list_data,
    "forward": _list_forwards,
    "readout": _list_readouts,
    "recipe": _list_recipes,
    "to": _list_formats,
    "device": lambda: ("auto", "cpu", "cuda"),
    "split": lambda: ("test", "validation", "train"),
    "effort": lambda: ("fast", "default", "thorough"),
}
"""By flag; each looks only when it is asked."""


def make_completer(flag: str) -> Completer | None:
    """What fits a beginning of the value of `flag`; None where only files or numbers do."""
    names = NAMES.get(flag)
    if names is None:
        return None

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete
