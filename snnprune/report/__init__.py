"""Reports: the evidence of a command as JSON. Counts are stored, percentages derived."""

from snnprune.report.about import about_evaluation, about_workload
from snnprune.report.frame import SCHEMA, about, file_entry, report, report_on

__all__ = [
    "SCHEMA",
    "about",
    "about_evaluation",
    "about_workload",
    "file_entry",
    "report",
    "report_on",
]
