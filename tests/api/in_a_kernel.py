"""Run the examples of docs/api.md as the cells of a notebook in a real kernel.

`python tests/api/in_a_kernel.py` needs nbclient and ipykernel; with OUT.html behind it nbconvert
too, and writes the notebook as a page. It fails where a cell does, where a result shows no tables,
or where no bar of progress was shown or one is left.
"""

import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from doc_blocks import blocks_of


def make_notebook() -> Any:
    """A cell for each example of the page, and one in which the network is tuned."""
    cells = [
        block.text
        for block in blocks_of("api.md")
        if block.language == "python" and "lightning" not in block.marks
    ]
    # so many steps take longer than half a second, after which a bar is seen, on any machine
    tuned = "snnprune.prune_model(model, train, sparsity=0.8, tune_steps=600)"
    nbformat = import_module("nbformat")
    noted = [nbformat.v4.new_code_cell(text.rstrip()) for text in (*cells, tuned)]
    return nbformat.v4.new_notebook(cells=noted)


def main(arguments: list[str]) -> None:
    """Run it, hold what it shows to what it has to, and write it as a page where one is named."""
    notebook = make_notebook()
    with tempfile.TemporaryDirectory() as folder:
        where = {"metadata": {"path": folder}}
        import_module("nbclient").NotebookClient(notebook, timeout=300, resources=where).execute()
    shown = [one.get("data", {}) for cell in notebook.cells for one in cell.outputs]
    tables = [data["text/html"] for data in shown if "<table" in data.get("text/html", "")]
    assert len(tables) == 2, "two cells end in a result"
    assert not any("<progress" in data.get("text/html", "") for data in shown), "bars are left"
    assert any(data.get("text/html") == "" for data in shown), "there was none, to be taken away"
    assert all(
        "PruningResult" in d["text/plain"] for d in shown if "<table" in d.get("text/html", "")
    )
    print(f"{len(notebook.cells)} cells ran, {len(tables)} results have tables")
    if arguments:
        page, _ = import_module("nbconvert").HTMLExporter().from_notebook_node(notebook)
        Path(arguments[0]).write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
