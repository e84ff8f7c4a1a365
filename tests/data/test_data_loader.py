"""Batches from the user's own function."""

from pathlib import Path
from textwrap import dedent

import pytest
import torch

from snnprune.data import DataOptions, DataSet, Split, open_data
from snnprune.errors import InputError


def opened(folder: Path, code: str) -> DataSet:
    file = folder / "mine.py"
    file.write_text("import torch\n" + dedent(code))
    return open_data(f"{file}:batches", options=DataOptions(), field="--data")


def of_test(data: DataSet) -> Split:
    assert data.train is not None
    assert data.given is data.train
    return data.train


LIST = """
    def batches():
        return [(torch.full((2, 1), float(i)), torch.tensor([i, i])) for i in range(3)]
"""
GENERATOR = """
    def batches():
        for i in range(3):
            yield torch.full((2, 1), float(i)), torch.tensor([i, i])
"""
ITERATOR = """
    def batches():
        return iter([(torch.full((2, 1), float(i)), torch.tensor([i, i])) for i in range(3)])
"""
LOADER = """
    from torch.utils.data import DataLoader, TensorDataset

    def batches():
        numbers = torch.arange(3).repeat_interleave(2)
        return DataLoader(TensorDataset(numbers.float()[:, None], numbers), batch_size=2)
"""


@pytest.mark.parametrize("code", [LIST, GENERATOR, ITERATOR, LOADER])
def test_the_batches_come_as_they_are_any_number_of_times(code: str, tmp_path: Path) -> None:
    data = opened(tmp_path, code)
    split = of_test(data)
    assert data.train is split
    assert (data.validation, data.classes) == (None, None)
    for _ in range(2):
        labels = []
        for x, y in split.batches(99):
            assert y is not None
            assert torch.equal(x[:, 0].long(), y)
            labels.append(y.tolist())
        assert labels == [[0, 0], [1, 1], [2, 2]]


def test_batches_without_labels_have_none(tmp_path: Path) -> None:
    split = of_test(
        opened(tmp_path, "def batches(): return [torch.ones(2, 3), [torch.ones(2, 3), None]]")
    )
    assert [(x.shape, y) for x, y in split.batches(1)] == [((2, 3), None)] * 2


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (2, 1), (3, 2), (6, 3), (100, 3)])
def test_limit_counts_samples_and_cuts_no_batch(limit: int, expected: int, tmp_path: Path) -> None:
    batches = list(of_test(opened(tmp_path, GENERATOR)).batches(1, limit=limit))
    assert [len(x) for x, _ in batches] == [2] * expected


def test_limit_goes_by_the_labels_where_time_comes_first(tmp_path: Path) -> None:
    code = "def batches(): return [(torch.ones(8, 2, 3), torch.zeros(2))] * 5"
    assert len(list(of_test(opened(tmp_path, code)).batches(1, limit=4))) == 2


def test_batches_are_moved_to_the_device(tmp_path: Path) -> None:
    ((x, y), *_) = of_test(opened(tmp_path, LIST)).batches(1, device="meta")
    assert y is not None
    assert (x.device.type, y.device.type) == ("meta", "meta")


@pytest.mark.parametrize(
    ("returned", "described"),
    [
        ("42", "returned 42"),
        ("None", "returned None"),
        ("{'x': torch.ones(2, 3)}", "returned a dict"),
        ("torch.ones(2, 3)", r"returned one tensor of shape \(2, 3\)"),
        ("(torch.ones(2, 3), torch.ones(2))", "returned a tuple of Tensor, Tensor"),
    ],
)
def test_a_function_that_returns_no_batches_says_what_it_returned(
    returned: str, described: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"--data: .*mine.py:batches {described}. give an iter"):
        opened(tmp_path, f"def batches(): return {returned}")


@pytest.mark.parametrize(
    ("batches", "described"),
    [
        ("[]", "gave no batches"),
        ("[1]", "gave 1 as batch 1"),
        ("[torch.ones(2, 3), {'x': 1}]", "gave a dict as batch 2"),
        ("[(torch.ones(2, 3), 5)]", "gave a tuple of Tensor, int as batch 1"),
        ("[(torch.ones(2, 3),) * 3]", "gave a tuple of Tensor, Tensor, Tensor as batch 1"),
        ("[torch.ones(0, 3)]", "gave an empty batch or a single number as batch 1"),
        ("[(torch.ones(3), torch.tensor(1))]", "gave an empty batch or a single number"),
        ("[torch.tensor(1.0)]", "gave an empty batch or a single number"),
    ],
)
def test_a_batch_of_another_kind_is_described(batches: str, described: str, tmp_path: Path) -> None:
    split = of_test(opened(tmp_path, f"def batches(): return {batches}"))
    with pytest.raises(InputError, match=f"--data: .*mine.py:batches {described}"):
        list(split.batches(1))


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("def batches(): raise OSError('no disk')", "OSError: no disk"),
        ("def batches(path): return []", "TypeError: .* missing 1 required"),
        ("def batches(): raise SystemExit(0)", "SystemExit: 0"),
        ("batches = 3", "TypeError: 'int' object is not callable"),
    ],
)
def test_a_function_that_fails_is_the_users(code: str, raised: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"mine.py:batches raised {raised}"):
        opened(tmp_path, code)


def test_a_failure_between_two_batches_is_the_users(tmp_path: Path) -> None:
    code = """
        def batches():
            yield torch.ones(2, 3)
            raise KeyError("second")
    """
    batches = iter(of_test(opened(tmp_path, code)).batches(1))
    assert len(next(batches)[0]) == 2
    with pytest.raises(InputError, match=r"mine\.py:batches raised KeyError"):
        next(batches)


def test_a_failure_of_the_caller_is_not_blamed_on_the_user(tmp_path: Path) -> None:
    def stop_at(batch: object) -> None:
        raise ZeroDivisionError

    batches = of_test(opened(tmp_path, GENERATOR)).batches(1)
    with pytest.raises(ZeroDivisionError):
        list(map(stop_at, batches))


def test_a_data_set_of_samples_rather_than_batches_is_refused(tmp_path: Path) -> None:
    code = """
        from torch.utils.data import Dataset

        class Samples(Dataset):
            def __getitem__(self, index):
                return torch.ones(3, 8, 8), 7

        def batches():
            return Samples()
    """
    with pytest.raises(InputError, match="gave a tuple of Tensor, int as batch 1"):
        list(of_test(opened(tmp_path, code)).batches(1))


def test_a_missing_file_or_function_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        open_data(f"{tmp_path}/none.py:batches", options=DataOptions())
    with pytest.raises(InputError, match="has no 'batches'"):
        opened(tmp_path, "def batch(): return []")
