"""Counts against limits, by hand."""

import dataclasses
import itertools
import os
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snnprune.errors import GateError, InputError
from snnprune.report.gates import read_limits
from snnprune.report.verdicts import (
    Measurements,
    Proportion,
    Verdict,
    append_step_summary,
    judge,
    make_gate_error,
    write_junit,
)

FOUND = Measurements(
    layers={"a": Proportion(part=90, whole=100), "b": Proportion(part=0, whole=10)},
    size=1000,
    right=Proportion(part=79, whole=100),
    right_before=Proportion(part=80, whole=100),
    operations=1000,
    energy=Fraction(46, 10),
    samples=10,
    silent=Proportion(part=3, whole=60),
    same=Proportion(part=999, whole=1000),
)


def verdict(name: str, limit: str, found: Measurements = FOUND) -> Verdict:
    (one,) = judge(read_limits({name: limit}), found)
    return one


@pytest.mark.parametrize(
    ("name", "kept", "broken"),
    [
        ("min-sparsity", "0.8181", "0.83"),  # 90 of 110
        ("max-sparsity", "0.82", "0.80"),
        ("max-layer-sparsity", "0.9", "0.89"),
        ("min-accuracy", "0.79", "0.7901"),
        ("max-accuracy-drop", "1", "0.99"),
        ("min-spike-agreement", "0.999", "0.9991"),
        ("max-synops", "100", "99.9"),
        ("max-energy", "0.46", "0.459"),
        ("max-size", "1kB", "999"),
        ("max-dead", "3", "2"),
        ("max-dead", "5%", "4.9%"),
    ],
)
def test_each_gate_is_met_on_its_limit_and_not_beyond(name: str, kept: str, broken: str) -> None:
    assert verdict(name, kept).met is True
    assert verdict(name, broken).met is False


def test_the_layer_that_is_told_is_that_of_the_greatest_share_not_of_the_most_weights() -> None:
    layers = {"wide": Proportion(part=50, whole=100), "small": Proportion(part=9, whole=10)}
    found = verdict("max-layer-sparsity", "0.5", dataclasses.replace(FOUND, layers=layers))
    assert (found.met, found.measured) == (False, 0.9)
    assert found.found == "9 of 10 weights of small pruned"


def test_nearly_as_many_as_were_asked_for_are_too_few() -> None:
    found = dataclasses.replace(FOUND, layers={"a": Proportion(part=89_999, whole=100_000)})
    assert verdict("min-sparsity", "0.9", found).met is False
    assert "89,999 of 100,000" in verdict("min-sparsity", "0.9", found).found


@given(st.decimals(0, 1, places=4), st.integers(1, 10**6))
def test_what_prune_prunes_for_a_sparsity_meets_it_from_both_sides(
    sparsity: object, weights: int
) -> None:
    share, pruned = float(str(sparsity)), round(float(str(sparsity)) * weights)
    found = dataclasses.replace(FOUND, layers={"a": Proportion(part=pruned, whole=weights)})
    none, whole = pruned == 0 and share > 0, pruned == weights and share < 1  # by rounding alone
    assert verdict("min-sparsity", str(sparsity), found).met is not none
    for name in ("max-sparsity", "max-layer-sparsity"):
        assert verdict(name, str(sparsity), found).met is not whole


def test_a_share_that_no_float_holds_is_compared_exactly() -> None:
    found = dataclasses.replace(FOUND, right=Proportion(part=1, whole=10), samples=10)
    assert float(Fraction(1, 10)) > Fraction(1, 10)  # a float would not do
    assert verdict("min-accuracy", "0.1", found).met is True


def test_what_was_not_measured_is_not_judged_and_an_error_before_all_others() -> None:
    found = dataclasses.replace(FOUND, right=None, missing={"right": "the images have no labels"})
    verdicts = judge(read_limits({"min-sparsity": "0.99", "min-accuracy": "0.5"}), found)
    assert [one.met for one in verdicts] == [False, None]
    error = make_gate_error(verdicts, "x.safetensors")
    assert isinstance(error, InputError)
    assert error.field == "--min-accuracy"
    assert "no labels" in str(error)


def test_all_gates_are_listed_and_those_that_failed_are_named() -> None:
    limits = {"min-sparsity": "0.99", "max-size": "10", "max-dead": "60"}
    verdicts = judge(read_limits(limits), FOUND)
    assert [one.met for one in verdicts] == [False, False, True]
    error = make_gate_error(verdicts, "x.safetensors")
    assert isinstance(error, GateError)
    assert error.exit_code == 4
    assert "2 of 3 gates not met" in str(error)
    assert "--min-sparsity 0.99" in str(error)
    assert "--max-size 10" in str(error)
    assert "max-dead" not in str(error)


def some() -> dict[str, list[Verdict]]:
    failing = verdict("max-layer-sparsity", "0.5")
    hostile = dataclasses.replace(failing, found="layer <b>&\x1b[31m ::error:: \u202e | `x` pruned")
    unknown = dataclasses.replace(failing, met=None, found="no labels")
    return {"m<o>del\x00.safetensors": [verdict("max-size", "1kB"), hostile, unknown]}


def test_the_junit_file_counts_and_escapes(tmp_path: Path) -> None:
    write_junit(tmp_path / "new" / "j.xml", "check", some())
    (suite,) = ElementTree.parse(tmp_path / "new" / "j.xml").getroot()
    assert {name: suite.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "1",
    }
    assert suite.get("name") == "m<o>del\\x00.safetensors"
    kinds = [[part.tag for part in case] for case in suite]
    assert kinds == [["system-out"], ["failure", "system-out"], ["error", "system-out"]]
    assert "\x1b" not in (tmp_path / "new" / "j.xml").read_text()


def test_the_step_summary_is_appended_and_holds_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    assert append_step_summary("check", some()) is None
    text = path.read_text()
    assert text.startswith("before\n### snnprune check: m&#60;o&#62;del")
    rows = [line for line in text.splitlines() if line.startswith("| max")]
    assert len(rows) == 3
    assert all(row.count("|") == 5 for row in rows)
    assert not any(mark in text for mark in ("<", "\x1b", "`", "\u202e"))


def test_a_summary_that_cannot_be_written_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", os.fspath(tmp_path))
    warning = append_step_summary("check", some())
    assert warning is not None
    assert "GITHUB_STEP_SUMMARY" in warning


def test_without_the_variable_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    assert append_step_summary("check", some()) is None


def test_every_gate_is_a_flag_of_check() -> None:
    from snnprune.jobs.options import CheckOptions
    from snnprune.report.gates import GATES

    flags = {field.name.replace("_", "-") for field in dataclasses.fields(CheckOptions)}
    assert set(GATES) <= flags


def test_no_gate_needs_what_nobody_measures() -> None:
    known = {field.name for field in dataclasses.fields(Measurements)}
    from snnprune.report.gates import GATES

    needs = itertools.chain.from_iterable(gate.needs for gate in GATES.values())
    assert set(needs) <= known
