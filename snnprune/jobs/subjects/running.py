"""A checkpoint's network, run once: what is exported as a graph."""

from __future__ import annotations

from snnprune.errors import InputError
from snnprune.exporting import Running, first_calls
from snnprune.jobs.subjects.opening import example_of, open_subject
from snnprune.jobs.subjects.options import SubjectOptions
from snnprune.jobs.subjects.subject import Subject

SAMPLES = 16


def run_once(options: SubjectOptions, *, field: str) -> tuple[Subject, Running]:
    """The network of a checkpoint and what it does on a batch of its data, or a blank picture.

    Raises:
        InputError: there is no network, or nothing to run it on; or as `open_subject`.
    """
    subject = open_subject(options)
    if subject.network is None or subject.spec is None:
        raise InputError(
            subject.missing or "no network",
            file=subject.checkpoint.path,
            field=field,
            hint="give --data" if subject.spec else "give --model",
        )
    example = example_of(subject.spec, subject.data, subject.device, count=SAMPLES)
    assert example is not None, "it was traced with one"
    return subject, first_calls(subject.network, example.x)
