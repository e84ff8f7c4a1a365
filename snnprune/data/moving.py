"""`moving-mini`: events of clothes that move, made of the bundled pictures; the same everywhere.

All of it is integers and NumPy's legacy generator, whose draws no release changes.
"""

from typing import Any

import numpy as np
import torch

from snnprune.data import DataOptions, DataSet
from snnprune.data.events import EventSplit, event_data_set
from snnprune.data.public import BUNDLED, read_part
from snnprune.data.settings import EVENTS, parse_settings

NAME = "moving-mini"
GARMENTS = (0, 1, 7, 8, 9)
"""T-shirt, trousers, sneaker, bag, boot: a class is one of them and a direction."""
PER_CLASS = {"train": 200, "t10k": 50}
SIDE, SPEED, STEP = 32, 2, 48
"""Pixels of a frame; pixels of a step; of 255, the change of brightness that makes an event."""
CHUNK = 250
"""Samples that are made at once, so that memory does not grow."""

Array = np.ndarray[Any, Any]


def moving_mini(options: DataOptions) -> DataSet:
    """200 training and 50 test recordings of each class, (T, 2, 32, 32) counts of events.

    Classes 2 g and 2 g + 1 are garment g moving to the left and to the right. A bright garment
    brightens what lies ahead (channel 0, ON) and darkens what lies behind (channel 1, OFF); every
    other pair is dark on bright, its channels swapped: so no single frame tells the direction.

    Raises:
        InputError: the installed files are damaged.
    """
    steps = parse_settings(NAME, options.settings).count
    train, test = (make_recordings(part, steps) for part in PER_CLASS)
    name = NAME if steps == EVENTS[NAME].usual.count else f"{NAME}:frames={steps}"
    return event_data_set(name, classes=2 * len(GARMENTS), train=train, test=test, options=options)


def make_recordings(part: str, steps: int) -> EventSplit:
    """The recordings of `train` or `t10k`, the garments and directions in turn."""
    pictures, labels = _choose_pictures(part, 2 * PER_CLASS[part])
    frames = np.zeros((len(pictures), steps, 2, SIDE, SIDE), np.uint8)
    draws = np.random.RandomState(len(pictures))  # whose draws stay the same
    number = np.arange(len(pictures)) // len(GARMENTS)
    to_right, dark = number % 2 == 1, number // 2 % 2 == 1
    for start in range(0, len(pictures), CHUNK):
        chosen = slice(start, start + CHUNK)
        _fill_frames(frames[chosen], pictures[chosen], to_right[chosen], dark[chosen], draws)
    classes = 2 * labels + to_right
    return EventSplit(images=torch.from_numpy(frames), labels=torch.from_numpy(classes))


def _choose_pictures(part: str, count: int) -> tuple[Array, Array]:
    """The first `count` pictures of each garment, (N, 28, 28), in turn, and which it is."""
    images, labels = read_part(BUNDLED, part, hint="reinstall snnprune")
    found = [(labels == garment).nonzero()[:count, 0] for garment in GARMENTS]
    order = torch.stack(found, 1).flatten()
    return images[order, 0].numpy(), np.tile(np.arange(len(GARMENTS)), count)


def _fill_frames(
    frames: Array, pictures: Array, to_right: Array, dark: Array, draws: np.random.RandomState
) -> None:
    """Events (N, T, 2, H, W) of the brightness that changes while each picture moves."""
    steps = frames.shape[1]
    scene = _place_pictures(pictures, steps, draws)
    middle = (scene.shape[2] - SIDE) // 2
    sign = np.where(dark, -1, 1).astype(np.int16)[:, None, None]
    before: Array | None = None
    for step in range(steps + 1):
        moved = SPEED * step - SPEED * steps // 2
        # the window moves the other way
        right, left = (scene[:, :, middle + way * moved :][:, :, :SIDE] for way in (-1, 1))
        now = np.where(to_right[:, None, None], right, left) * sign
        if before is not None:
            change = now - before
            frames[:, step - 1, 0] = change.clip(0) // STEP
            frames[:, step - 1, 1] = (-change).clip(0) // STEP
        before = now
    noise = np.frombuffer(draws.bytes(frames.size), np.uint8).reshape(frames.shape)
    frames += noise == 0  # one event more at every 256th place


def _place_pictures(pictures: Array, steps: int, draws: np.random.RandomState) -> Array:
    """Each picture in a scene that is wide enough to move in, a little off the middle."""
    count, side = len(pictures), pictures.shape[1]
    scene = np.zeros((count, SIDE, SIDE + 2 * SPEED * steps), np.int16)
    down = draws.randint(0, SIDE - side + 1, count)
    across = (scene.shape[2] - side) // 2 + draws.randint(-1, 2, count)
    for number, picture in enumerate(pictures):
        top, left = down[number], across[number]
        scene[number, top : top + side, left : left + side] = picture
    return scene
