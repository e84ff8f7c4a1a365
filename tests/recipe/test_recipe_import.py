"""A typo in a recipe must be told before torch is imported, which takes seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

from pace import pace

import snnprune
from snnprune.recipe.loading import builtin_recipes

LOAD = """
import sys
from snnprune.recipe import load_recipe
load_recipe("cifar10", ["training.epochs=3"])
"""


def run(code: str, folder: Path | None = None) -> str:
    command = [sys.executable, "-c", code]  # -c looks for modules in the current folder first
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_loading_a_recipe_imports_no_torch() -> None:
    heavy = run(f"{LOAD}\nprint([name for name in ('torch', 'numpy') if name in sys.modules])")
    assert heavy.strip() == "[]"


def test_loading_a_recipe_takes_less_than_three_tenths_of_a_second() -> None:
    code = f"import time\nstart = time.process_time()\n{LOAD}\nprint(time.process_time() - start)"
    assert any(float(run(code)) < 0.3 * pace() for _ in range(3))


def test_the_built_in_recipes_are_found_inside_an_installed_package(tmp_path: Path) -> None:
    source = Path(snnprune.__file__).parent
    (tmp_path / "snnprune").mkdir()
    for name in ("__init__.py", "errors.py", "runtime.py"):
        shutil.copy(source / name, tmp_path / "snnprune" / name)
    for name in ("plugins", "recipe"):
        shutil.copytree(source / name, tmp_path / "snnprune" / name)
    shutil.copytree(builtin_recipes()["smoke"].parent, tmp_path / "snnprune" / "recipes")
    code = "from snnprune.recipe import builtin_recipes\nprint(builtin_recipes()['smoke'])"
    assert run(code, tmp_path).strip() == str(tmp_path / "snnprune" / "recipes" / "smoke.yaml")


def test_the_names_in_a_recipe_are_checked_without_torch() -> None:
    code = (
        "import sys; from snnprune.jobs.train.recipes import require_names; "
        "from snnprune.recipe import load_recipe; require_names(load_recipe('cifar10')); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
