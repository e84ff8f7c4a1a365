"""Take the bundled images out of Fashion-MNIST: `python -m snnprune.data.bundled.make FOLDER`.

FOLDER holds the four original files. Running it again gives the same bytes.
"""

import gzip
import sys
from pathlib import Path

import torch
from torch import Tensor

from snnprune.data import mnist
from snnprune.data.mnist import BUNDLED, CLASSES
from snnprune.files.together import replace_file
from snnprune.runtime import derive_seed

PER_CLASS = {"train": 600, "t10k": 100}


def make(source: Path, target: Path) -> None:
    """Write the chosen images and labels of `source` as four IDX files into `target`."""
    for part, count in PER_CLASS.items():
        images, labels = mnist.read_part(source, part, hint="get the original files")
        chosen = _choose_indices(labels, part, count)
        _write(target / f"{part}-images-idx3-ubyte.gz", images[chosen].squeeze(1))
        _write(target / f"{part}-labels-idx1-ubyte.gz", labels[chosen].to(torch.uint8))


def _choose_indices(labels: Tensor, part: str, count: int) -> list[int]:
    """The indices of `count` images per class, in order."""
    chosen: list[int] = []
    for label in range(CLASSES):
        members = (labels == label).nonzero().flatten().tolist()
        # By hash and not by torch's generator, so that no release of torch changes the choice.
        members.sort(key=lambda index: derive_seed("fashion-mnist", part, index))
        chosen += members[:count]
    return sorted(chosen)


def _write(path: Path, values: Tensor) -> None:
    with (
        replace_file(path) as temporary,
        temporary.open("wb") as file,
        # No name and no time of writing in the header.
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as packed,
    ):
        packed.write(mnist.encode_idx(values))


if __name__ == "__main__":
    make(Path(sys.argv[1]), BUNDLED)
