"""Reports: the evidence of a command as JSON. Counts are stored, percentages derived."""

from snnprune.report.about import about_evaluation, about_workload, doubts_on, doubts_on_both
from snnprune.report.frame import SCHEMA, file_entry, report

__all__ = [
    "SCHEMA",
    "about_evaluation",
    "about_workload",
    "doubts_on",
    "doubts_on_both",
    "file_entry",
    "report",
]
