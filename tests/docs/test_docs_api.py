"""What docs/api.md shows runs, block after block, and its options are those of the calls."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import DOCS, assert_shown, blocks_of, in_folder, read, table_under

import snnprune
from snnprune.jobs.prune.options import PruneOptions

PAGE = "api.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_every_example_runs_after_those_before_it_and_prints_what_the_page_shows(
    tmp_path: Path,
) -> None:
    outputs, variables = {}, dict[str, Any]({"__name__": "__main__"})
    with in_folder(tmp_path):
        for block in blocks_of(PAGE):
            if block.language != "python" or "lightning" in block.marks:
                continue
            out, place = io.StringIO(), "\n" * block.line
            with contextlib.redirect_stdout(out):
                exec(compile(place + block.text, str(DOCS / PAGE), "exec"), variables)
            outputs[block.line] = out.getvalue()
    assert len(outputs) == 6
    assert_shown(PAGE, outputs)


def test_the_calls_and_options_that_the_page_names_are_there() -> None:
    calls = [row[0] for row in table_under(PAGE, "From Python, in a notebook or a script")]
    names = [call.removeprefix("snnprune.").partition("(")[0] for call in calls]
    assert names == ["prune_model", "score_model", "evaluate_model"]
    assert all(callable(getattr(snnprune, name)) for name in names)
    fields = set(PruneOptions.__dataclass_fields__) | {"sparsity", "progress"}
    differing = "".join(row[1] for row in table_under(PAGE, "One call"))
    named = {"sparsity", "evaluate", "links", "forward", "report", "progress"}
    assert all(name in differing for name in named)
    assert named <= fields
    for name in ("criterion", "structure", "bits", "max_accuracy_drop", "exclude", "seed"):
        assert f"`{name}=" in read(PAGE)
        assert name in fields
