"""`snnprune sensitivity`: what each layer alone costs at each sparsity."""

from snnprune.jobs.sensitivity.options import SPARSITIES, SensitivityOptions
from snnprune.jobs.sensitivity.sensitivity import Sensitivity, measure_sensitivity
from snnprune.jobs.sensitivity.trials import Trial

__all__ = ["SPARSITIES", "Sensitivity", "SensitivityOptions", "Trial", "measure_sensitivity"]
