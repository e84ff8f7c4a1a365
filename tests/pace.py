"""How slow this machine is just now, so that a limit in seconds holds on a busy one too."""

import time

ALONE = 0.02
"""Seconds that the work below takes on a core of 2023 that does nothing else."""


def pace() -> float:
    """By what a limit for a quiet machine is to be multiplied: 1 or more."""
    began = time.process_time()
    found: dict[int, str] = {}
    for number in range(200_000):
        found[number % 1_000] = str(number)
    return max(1.0, (time.process_time() - began) / ALONE)
