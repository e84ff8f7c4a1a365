"""The same readers under atheris, which is led by coverage, where it is installed.

    PYTHONPATH=tests python -m fuzz.with_atheris TARGET [libFuzzer's flags]

It has no wheels for every Python and machine, and no test needs it. The bytes that it makes
take the place of one file of the target's first seed; which containers it opens it has to find out.
"""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Runs until something crashes; 2 without atheris."""
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print("atheris is not installed: python tests/fuzz/run.py needs nothing", file=sys.stderr)
        return 2
    with atheris.instrument_imports(include=["snnprune"]):
        from corpus.bench import Bench

        from fuzz.targets import TARGETS
        from fuzz.undisturbed import undisturbed
        from fuzz.worker import CRASHED, outcome

    target, place = TARGETS[arguments[1]], Path(tempfile.mkdtemp())
    bench = Bench(place / "bench")
    first = target.seeds(bench)[0]
    name = next(name for name in first if any(re.search(way, name) for way in target.ways))
    (place / "seeds").mkdir()
    (place / "seeds" / "first").write_bytes(first[name])

    def one_input(data: bytes) -> None:
        came, why = outcome(target, bench, {**first, name: data}, place / "here")
        if came == CRASHED:
            raise AssertionError(why)

    with undisturbed():
        atheris.Setup([arguments[0], *arguments[2:], str(place / "seeds")], one_input)
        atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
