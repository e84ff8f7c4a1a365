"""Gates: limits that a pruned network must keep, exactly compared, for people and machines."""

from snnprune.gates.gate import Gate, Limit, Verdict
from snnprune.gates.gates import GATES, read_limits
from snnprune.gates.junit import write_junit
from snnprune.gates.measured import Count, Measured
from snnprune.gates.outcome import error_of, judge
from snnprune.gates.step_summary import append_step_summary

__all__ = [
    "GATES",
    "Count",
    "Gate",
    "Limit",
    "Measured",
    "Verdict",
    "append_step_summary",
    "error_of",
    "judge",
    "read_limits",
    "write_junit",
]
