"""CIFAR in small pickles of the true form, whose MD5 sums torchvision is told to expect."""

import hashlib
import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

KINDS = {"cifar10": (CIFAR10, "labels", 10), "cifar100": (CIFAR100, "fine_labels", 100)}
PER_FILE = 20


class OldPickler(pickle.Pickler):
    """Writes a dtype that NumPy >= 2.4 warns of, as 2.4.0 to 2.4.4 do of the original files."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.dtype):
            return partial(np.dtype, align=0), ("u1",), (3, "|", None, None, None, -1, -1, 0)
        return NotImplemented


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    OldPickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def pixels(seed: int) -> np.ndarray[Any, Any]:
    """Rows as in CIFAR: 1024 red, 1024 green, 1024 blue values of 32 rows of 32."""
    return np.random.default_rng(seed).integers(0, 256, (PER_FILE, 3072), dtype=np.uint8)


def write_set(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    kind, key, classes = KINDS[name]
    folder = root / kind.base_folder
    folder.mkdir(parents=True)

    def written(file: str, value: object) -> str:
        data = pickled(value)
        (folder / file).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(seed: int) -> dict[str, Any]:
        labels = [(seed + index) % classes for index in range(PER_FILE)]
        return {"data": pixels(seed), key: labels, "batch_label": f"batch {seed}"}

    for listed in ("train_list", "test_list"):
        files = [file for file, _ in getattr(kind, listed)]
        start = 0 if listed == "train_list" else 90
        sums = [[file, written(file, batch(start + i))] for i, file in enumerate(files)]
        monkeypatch.setattr(kind, listed, sums)
    meta = {**kind.meta, "md5": ""}
    names = {meta["key"]: [f"class {number}" for number in range(classes)]}
    meta["md5"] = written(meta["filename"], names)
    monkeypatch.setattr(kind, "meta", meta)
    return folder
