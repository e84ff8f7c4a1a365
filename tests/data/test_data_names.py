"""Names of data sets, and where the sets lie."""

import subprocess
import sys
from pathlib import Path

import pytest

from snnprune.data import DATA, FORMS, DataOptions, name_samples, open_data, require_data
from snnprune.errors import InputError, UsageError
from snnprune.plugins.names import RegistryRow
from snnprune.plugins.user_code import load_object
from snnprune.report import doubt_evaluation, name_samples_of

PICTURES = ("fashion-mnist-mini", "fashion-mnist", "mnist", "cifar10", "cifar100", "svhn")


def modules_after(code: str) -> set[str]:
    shown = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", shown], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_listing_and_checking_names_imports_neither_torch_nor_torchvision() -> None:
    loaded = modules_after("from snnprune.data import *; require_data('mnist'); DATA.names()")
    assert "snnprune.data" in loaded
    assert not loaded & {"torch", "torchvision", "numpy"}


@pytest.mark.slow
def test_opening_the_bundled_set_does_not_import_torchvision() -> None:
    loaded = modules_after(
        "from snnprune.data import *; open_data('fashion-mnist-mini', options=DataOptions())"
    )
    assert "torch" in loaded
    assert "torchvision" not in loaded


@pytest.mark.parametrize("row", [*DATA.rows.values(), *FORMS.values()], ids=lambda row: row.target)
def test_every_row_names_a_function_and_says_what_it_holds(row: RegistryRow) -> None:
    assert callable(load_object(row.target, field="--data"))
    assert row.summary


@pytest.mark.parametrize(
    "name", ["mnist", "imagefolder:no/such/folder", "tensors:x.pt", "no/such.py:f", "package.m:f"]
)
def test_a_name_of_a_known_form_passes_without_being_opened(name: str) -> None:
    require_data(name)


def test_a_misspelt_name_gets_a_proposal() -> None:
    with pytest.raises(InputError) as caught:
        require_data("cifar-10", field="data.name")
    assert str(caught.value) == "data.name: unknown data set 'cifar-10'. did you mean cifar10?"


@pytest.mark.parametrize("name", ["imagefolder:", "tensors:"])
def test_a_form_without_a_place_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"--data: .* names no place"):
        require_data(name)
    with pytest.raises(InputError, match=r"data\.name: .* names no place"):
        require_data(name, field="data.name")


def test_opening_checks_the_name_first() -> None:
    with pytest.raises(UsageError, match="unknown data set"):
        open_data("fashion", options=DataOptions())


def test_the_folder_is_the_given_one_then_the_variables_then_the_caches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SNNPRUNE_CACHE", raising=False)
    monkeypatch.delenv("SNNPRUNE_DATA", raising=False)
    assert DataOptions().find_folder() == Path("/home/somebody/.cache/snnprune/data")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert DataOptions().find_folder() == Path("/cache/snnprune/data")
    monkeypatch.setenv("SNNPRUNE_CACHE", "/ours")
    assert DataOptions().find_folder() == Path("/ours/data")
    monkeypatch.setenv("SNNPRUNE_DATA", "/sets")
    assert DataOptions().find_folder() == Path("/sets")
    assert DataOptions(root=Path("here")).find_folder() == Path("here")


def test_a_user_without_a_home_has_a_folder_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SNNPRUNE_CACHE", raising=False)
    monkeypatch.delenv("SNNPRUNE_DATA", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert DataOptions().find_folder().parts[-2:] == ("snnprune", "data")


@pytest.mark.parametrize(
    ("name", "noun"),
    [
        *((name, "images") for name in DATA.rows if name in PICTURES),
        ("imagefolder:pictures", "images"),
        ("tensors:x.safetensors", "samples"),
        ("own.py:batches", "samples"),
        (None, "samples"),
    ],
)
def test_messages_call_images_what_are_some(name: str | None, noun: str) -> None:
    assert name_samples(name) == noun


def test_a_page_on_sounds_speaks_of_samples() -> None:
    evaluation = {"samples": 40, "labelled": 40, "firing_rates": {"n": 0.0}, "answers": 2}
    told = doubt_evaluation(evaluation, noun=name_samples_of({"data": {"name": "own.py:sounds"}}))
    assert told == ["n: no spike on 40 samples of the network"]
