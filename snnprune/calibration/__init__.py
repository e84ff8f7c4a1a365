"""Statistics of one pass over sample data: what calibration-based criteria know of a network."""

from snnprune.calibration.calibrate import MIN_SAMPLES, calibrate
from snnprune.calibration.file import read_calibration, write_calibration
from snnprune.calibration.statistics import (
    Calibration,
    DriveStatistics,
    LayerStatistics,
    NeuronStatistics,
)

__all__ = [
    "MIN_SAMPLES",
    "Calibration",
    "DriveStatistics",
    "LayerStatistics",
    "NeuronStatistics",
    "calibrate",
    "read_calibration",
    "write_calibration",
]
