"""Sample images for calibration, training and evaluation; nothing here imports torch.

Adding a data set is one function `(DataOptions) -> DataSet` and one row of `catalogue.DATA`.
"""

from snnprune.data.catalogue import DATA, FORMS, open_data, require_data
from snnprune.data.dataset import (
    GIVEN,
    SPLITS,
    DataOptions,
    DataSet,
    Split,
    TrainingSplit,
)

__all__ = [
    "DATA",
    "FORMS",
    "GIVEN",
    "SPLITS",
    "DataOptions",
    "DataSet",
    "Split",
    "TrainingSplit",
    "open_data",
    "require_data",
]
