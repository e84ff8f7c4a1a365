"""What the tool answers to a case, and all that is wrong with it."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from corpus.bench import Bench
from corpus.case import REFUSED, Case
from corpus.kinds import KINDS, LOOSE, Kind
from corpus.watching import watching
from snnprune.errors import HIDDEN

BAD_LINES = 2
"""Commands that a bad file is given to: the others have the same reader."""

Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def faults(case: Case, bench: Bench, run: Run) -> list[str]:
    """What is wrong with the answers to a case; none where all is as promised."""
    kind, found = KINDS[case.kind], []
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        lines = kind.lines(place / "here", place / "out", bench.folder)
        for number, line in enumerate(lines if case.good else lines[:BAD_LINES]):
            case.lay(place / "here", bench)
            (place / "out").mkdir(exist_ok=True)
            codes = case.codes if number == 0 else (*case.codes, *LOOSE)
            found += [f"{line[0]}: {fault}" for fault in _of_command(kind, place, line, codes, run)]
            _empty(place)
    return found


def _of_command(
    kind: Kind, place: Path, line: list[str], codes: tuple[int, ...], run: Run
) -> Iterator[str]:
    here, out, cwd = place / "here", place / "out", place / "cwd"
    before = _inputs(here, kind)
    cwd.mkdir(exist_ok=True)
    with contextlib.chdir(cwd), watching(place, Path("/dev/null")) as seen:
        done = run(*line)
    yield from (f"does {what}" for what in seen)
    yield from _of_answer(done, codes, kind, here / kind.file)
    if _inputs(here, kind) != before:
        yield "changes its input"
    if done.returncode and (left := [*out.rglob("*"), *cwd.rglob("*")]):
        yield f"leaves {[path.name for path in left]}"


def _of_answer(done: Done, codes: tuple[int, ...], kind: Kind, file: Path) -> Iterator[str]:
    errors = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    if done.returncode not in codes:
        told = (errors or done.stderr.splitlines()[-1:] or [""])[0]
        yield f"ends with {done.returncode} for {codes}: {told[:300]}"
    if "Traceback" in done.stdout + done.stderr:
        yield "shows a traceback"
    if done.returncode == REFUSED:
        if len(errors) != 1 and not (errors and kind.several):
            yield f"has {len(errors)} lines that tell of an error"
        elif not any(name in errors[0] for name in (file.name, *kind.named)):
            yield f"does not name {file.name}: {errors[0][:300]}"
    raw = {c for c in done.stdout + done.stderr if unicodedata.category(c) in HIDDEN} - {"\n"}
    if raw:
        yield f"prints {raw!r} raw"
    if any(text.startswith("::") for text in (done.stdout + done.stderr).splitlines()):
        yield "commands a CI server"


def _inputs(here: Path, kind: Kind) -> Mapping[str, str]:
    """The hash of every file that no command may change."""
    files = {str(p.relative_to(here)): p for p in sorted(here.rglob("*")) if p.is_file()}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in files.items()
        if not (kind.touches and name.startswith(kind.touches))
    }


def _empty(place: Path) -> None:
    for folder in place.iterdir():
        shutil.rmtree(folder)
