"""Limits as they are written."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnprune.errors import UsageError
from snnprune.report import gates
from snnprune.report.gates import GATES, read_limits


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (gates.parse_share, "0.9", Fraction(9, 10)),
        (gates.parse_share, "1", Fraction(1)),
        (gates.parse_share, "1e-3", Fraction(1, 1000)),
        (gates.parse_share, " .5 ", Fraction(1, 2)),
        (gates.parse_points, "1.1", Fraction(11, 10)),
        (gates.parse_operations, "1.5M", Fraction(1_500_000)),
        (gates.parse_operations, "2e6", Fraction(2_000_000)),
        (gates.parse_energy, "1.2uJ", Fraction(1_200_000)),
        (gates.parse_energy, "1.2µJ", Fraction(1_200_000)),
        (gates.parse_energy, "7", Fraction(7)),
        (gates.parse_size, "200kB", Fraction(200_000)),
        (gates.parse_size, "2 MiB", Fraction(2 * 2**20)),
    ],
)
def test_a_limit_is_exactly_what_was_written(read, text: str, value: Fraction) -> None:  # type: ignore[no-untyped-def]
    assert read(text, "--flag") == value


@pytest.mark.parametrize(("text", "value"), [("3", (3, False)), ("5%", (Fraction(1, 20), True))])
def test_channels_are_counted_or_a_share(text: str, value: object) -> None:
    assert gates.parse_number_or_percent(text, "--max-dead") == value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("min-sparsity", "90", "did you mean 0.9?"),
        ("min-sparsity", "nan", "0.9"),
        ("min-sparsity", "-0.1", "0.9"),
        ("min-sparsity", "0.9.1", "0.9"),
        ("min-sparsity", "inf", "0.9"),
        ("min-accuracy", "80%", "0.8"),
        ("max-accuracy-drop", "100", "[0, 100)"),
        ("max-synops", "1e999999999", "1.5M"),
        ("max-synops", "1e25", "1.5M"),
        ("max-synops", "1" * 40, "1.5M"),
        ("max-energy", "3 apples", "1.2uJ"),
        ("max-size", "2MQ", "200kB"),
        ("max-dead", "1.5", "5%"),
        ("max-dead", "101%", "5%"),
        ("max-dead", "", "5%"),
    ],
)
def test_what_is_no_limit_is_refused_with_how_it_is_written(
    name: str, text: str, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_limits({name: text})
    assert caught.value.field == f"--{name}"
    assert words in str(caught.value)


def test_limits_that_leave_nothing_between_them_are_refused() -> None:
    with pytest.raises(UsageError, match=r"0\.9 is more than --max-sparsity 0\.8"):
        read_limits({"min-sparsity": "0.9", "max-sparsity": "0.8"})


@given(st.text(max_size=40), st.sampled_from(sorted(GATES.keys() - {"chip"})))  # a file
def test_any_text_is_a_limit_or_a_usage_error(text: str, name: str) -> None:
    try:
        (found,) = read_limits({name: text})
    except UsageError as error:
        assert error.hint is not None or "[0, 1" in error.message  # noqa: PT017  # either is right
    else:
        assert found.text == text.strip()
