"""How a command's parameters are made of options."""

import inspect
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Annotated

import pytest
import typer

import snnprune.cli.commands  # noqa: F401  # has all options
from snnprune.cli.options import expand_options
from snnprune.errors import UsageError
from snnprune.jobs.targets.options import FurtherOptions, Options, ReadAs


def parse_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


@dataclass(frozen=True, kw_only=True)
class Common(Options):
    device: Annotated[str, typer.Option(help="Where.")] = "auto"
    samples: int = 1024


@dataclass(frozen=True, kw_only=True)
class Further(FurtherOptions):
    force: Annotated[bool, typer.Option("--force")] = False


@dataclass(frozen=True, kw_only=True)
class Own(Common, Further):
    steps: Annotated[
        tuple[int, ...],
        ReadAs(given=str, default="1,2", read=parse_numbers),
        typer.Option(metavar="N,N"),
    ] = (1, 2)
    samples: Annotated[int, typer.Option(min=1)] = 256

    def check(self) -> None:
        if self.samples > 1000:
            raise UsageError("too many", field="--samples")


@dataclass(frozen=True, kw_only=True)
class Shown(Options):
    quiet: Annotated[bool, typer.Option("--quiet")] = False


@expand_options
def command(options: Own, show: Shown, name: str = "") -> tuple[Own, Shown, str]:
    return options, show, name


@expand_options
def plain(options: Common) -> None:
    pass


def call(**given: object) -> tuple[Own, Shown, str]:
    """The command as typer calls it: a value for each parameter, that which was given or not."""
    parameters = inspect.signature(command).parameters.values()
    values = {one.name: given.get(one.name, one.default) for one in parameters}
    return command(**values)  # type: ignore[arg-type]


def test_own_flags_come_first_and_further_ones_after_those_of_all_options() -> None:
    assert list(inspect.signature(command).parameters) == [
        *("name", "steps", "samples", "device", "quiet", "force")
    ]


def test_a_field_without_a_flag_becomes_one_where_a_class_declares_it_anew() -> None:
    assert "samples" not in inspect.signature(plain).parameters
    assert call(samples=8)[0].samples == 8


def test_what_is_read_as_something_else_shows_a_default_of_its_own() -> None:
    assert inspect.signature(command).parameters["steps"].default == "1,2"
    assert call()[0].steps == (1, 2)
    assert call(steps="3")[0].steps == (3,)


def test_options_are_checked_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="too many"):
        call(samples=2000, steps="no number")


def kinds(of: type[Options] = Options) -> Iterator[type[Options]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def test_a_field_of_two_bases_has_the_default_of_the_one_that_says_its_flag() -> None:
    for kind in kinds():
        said = {one.name: one.default for one in fields(kind) if one.default is not MISSING}
        assert said == {name: getattr(kind, name) for name in said}, kind
