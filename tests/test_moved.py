"""Imports that were documented once: the same objects, with a warning that says where they are."""

import importlib
import subprocess
import sys

import pytest

import snnprune

DOCUMENTED = {
    "agreement": ("agreement",),
    "allocation": ("ALLOCATIONS",),
    "allocation.candidates": ("Candidates",),
    "calibration": ("calibrate", "read_calibration", "Calibration"),
    "criteria": ("CRITERIA", "criterion", "Evidence"),
    "criteria.spiking": ("rate_per_weight",),
    "data.assembly": ("image_data_set",),
    "evaluation": ("evaluate",),
    "jobs.subjects.opening": ("open_subject",),
    "jobs.subjects.options": ("SubjectOptions",),
    "models.dynamics": ("Dynamics",),
    "network": ("trace", "Network"),
    "network.libraries": ("NeuronConstants", "NeuronLibrary"),
    "one_shot": ("OneShot", "Plan"),
    "repair": ("REPAIRS",),
    "scoring": ("score",),
}


@pytest.mark.parametrize("module", DOCUMENTED)
def test_a_documented_import_of_before_works_and_says_where_it_is_now(module: str) -> None:
    sys.modules.pop(f"snnprune.{module}", None)
    with pytest.warns(DeprecationWarning, match=f"snnprune.{module} is snnprune"):
        old = importlib.import_module(f"snnprune.{module}")
    new = [importlib.import_module(f"snnprune.{home}") for home in snnprune.MOVED[module]]
    for name in DOCUMENTED[module]:
        homes = [one for one in new if hasattr(one, snnprune.RENAMED.get(name, name))]
        assert getattr(old, name) is getattr(homes[0], snnprune.RENAMED.get(name, name))


@pytest.mark.parametrize("name", [name for name in snnprune.__all__ if name != "__version__"])
def test_the_names_of_the_package_itself_are_there(name: str) -> None:
    assert callable(getattr(snnprune, name))


@pytest.mark.slow
def test_the_warning_names_the_line_of_the_caller_and_comes_once() -> None:
    code = "\nfrom snnprune.one_shot import OneShot, Plan\nfrom snnprune.one_shot import Plan"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("DeprecationWarning") == 1
    assert "<string>:2: DeprecationWarning" in done.stderr


def test_what_never_was_is_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("snnprune.nothing_of_the_kind")
    sys.modules.pop("snnprune.one_shot", None)
    warned = pytest.warns(DeprecationWarning, match="works for one release")
    with warned, pytest.raises(ImportError, match="Nothing"):
        exec("from snnprune.one_shot import Nothing")
