"""All cases: importing the modules that have them adds them."""

from corpus import (
    data_files,
    folders,
    graphs,
    plain_checkpoints,
    recipes,
    side_files,
    torch_checkpoints,
)
from corpus.case import CASES

__all__ = ["BAD", "CASES", "GOOD"]
_MODULES = (
    data_files,
    folders,
    graphs,
    plain_checkpoints,
    recipes,
    side_files,
    torch_checkpoints,
)
GOOD = [case for case in CASES if case.good]
BAD = [case for case in CASES if not case.good]
