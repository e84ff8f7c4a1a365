"""The cropped street view house numbers, in torchvision's layout; Netzer et al. 2011."""

import importlib.util
from typing import Any

import torch

from snnprune.data.dataset import DataOptions, DataSet
from snnprune.data.images import ImageSplit, image_data_set
from snnprune.data.presence import download, require_intact
from snnprune.errors import InputError

MEAN, STD = (0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970)
SPLITS = ("train", "test")


def svhn(options: DataOptions) -> DataSet:
    """SVHN, 73,257 + 26,032 images; the further training images ("extra") are left out.

    Raises:
        InputError: files are missing or damaged, or scipy, which reads them, is not installed.
    """
    from torchvision.datasets import SVHN

    if importlib.util.find_spec("scipy") is None:
        raise InputError("svhn is read with scipy", hint="pip install scipy")
    root = options.find_folder()
    if options.download:
        download("svhn", lambda: [SVHN(root, split=split, download=True) for split in SPLITS], root)
    listed = [SVHN.split_list[split] for split in SPLITS]
    require_intact("svhn", root, {file: md5 for _, file, md5 in listed})
    train, test = (_make_split(SVHN(root, split=split)) for split in SPLITS)
    return image_data_set("svhn", classes=10, train=train, test=test, options=options)


def _make_split(pictures: Any) -> ImageSplit:
    images = torch.from_numpy(pictures.data).contiguous()
    labels = torch.from_numpy(pictures.labels)
    return ImageSplit(images=images, labels=labels, mean=MEAN, std=STD)
