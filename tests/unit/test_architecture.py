"""Tests of the allowed imports, read from the sources, and of the modules that must not load torch.

`python -m tests.unit.test_architecture` writes the rules into docs/architecture.md and its diagram.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pai_bench
from tests.unit import diagram

PACKAGE = Path(pai_bench.__file__).parent
METHODS = PACKAGE.parent / "methods"
PAGE = PACKAGE.parent / "docs" / "architecture.md"
DRAWING = PACKAGE.parent / "docs" / "figures" / "imports.svg"

# A package may import the packages to the right of it, and nothing else of pai-bench.
BASE = {"cells", "core", "errors"}
ALLOWED = {
    "errors": set(),
    "cells": {"errors"},
    "core": {"cells", "errors"},
    "recipes": {"cells", "core", "errors"},
    "results": BASE,
    "analysis": {*BASE, "datasets.files", "recipes", "results"},
    "reproductions": {*BASE, "analysis", "recipes", "results"},
    "datasets.files": {"core", "errors"},
    "datasets": {"core", "datasets.files", "errors", "recipes"},
    "models": {"core", "errors"},
    "scoring": BASE,
    "methods": {"errors", "scoring"},
    "pruning": {*BASE, "models", "results", "scoring"},
    "testing": {*BASE, "pruning", "scoring"},
    "training": {*BASE, "datasets", "pruning", "recipes", "results", "scoring"},
    "experiment": {*BASE, "datasets", "models", "pruning", "recipes", "results", "scoring", "training"},
    "sweep.execution": {*BASE, "datasets", "datasets.files", "experiment", "recipes", "results", "training"},
    "sweep.planning": {
        *(*BASE, "datasets", "datasets.files", "experiment", "models", "pruning", "recipes", "results", "scoring"),
        *("sweep.execution", "training"),
    },
    "sweep.local": {
        *(*BASE, "experiment", "pruning", "recipes", "results", "sweep.execution", "sweep.planning", "training"),
    },
    "sweep.slurm": {
        *(*BASE, "experiment", "pruning", "recipes", "results", "sweep.execution", "sweep.planning", "training"),
    },
    "sweep.monitoring": {*BASE, "results", "sweep.execution", "sweep.planning", "sweep.slurm"},
    "sweep": {
        *(*BASE, "datasets", "experiment", "models", "pruning", "recipes", "results", "scoring", "sweep.execution"),
        *("sweep.local", "sweep.monitoring", "sweep.planning", "sweep.slurm", "training"),
    },
    "speed": {*BASE, "analysis", "datasets", "experiment", "models", "pruning", "recipes", "results", "scoring"},
    "doctor": {*BASE, "datasets.files", "experiment", "results", "sweep.execution", "sweep.slurm"},
    "cli": {
        *(*BASE, "__version__", "analysis", "datasets.files", "doctor", "recipes", "reproductions", "results", "speed"),
        *("sweep", "sweep.execution", "sweep.monitoring", "sweep.planning", "sweep.slurm"),
    },
    "registry": {"scoring"},
    "data_files": {"datasets.files"},
    "__init__": {"analysis", "core", "datasets.files", "errors", "models", "pruning", "results", "scoring"},
    "__main__": {"cli"},
}


TORCH_WHEN_NEEDED = {
    "pai_bench/results/mask_forms.py": "reads files of torch.save, inside a function",
    "pai_bench/results/ties.py": "names a tensor in an annotation",
}


def room_of(module: str) -> str:
    """The package of a module, by its full name: the longest one that has a rule."""
    parts = module.split(".")[1:]
    return next(
        (name for end in range(len(parts), 0, -1) if (name := ".".join(parts[:end])) in ALLOWED),
        parts[0] if parts else "__init__",
    )


def sources() -> list[tuple[str, Path]]:
    found = []
    for path in PACKAGE.rglob("*.py"):
        inside = path.relative_to(PACKAGE.parent).with_suffix("")
        found.append((room_of(".".join(inside.parts).removesuffix(".__init__")) if inside.parent.name else "", path))
    found = [("__init__" if path == PACKAGE / "__init__.py" else room, path) for room, path in found]
    return [*(pair for pair in found if pair[0] != "methods"), *(("methods", path) for path in METHODS.glob("*.py"))]


def imported(path: Path) -> set[str]:
    """Full names of all that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def test_imports_go_down_only() -> None:
    upwards = {}
    for room, path in sources():
        ours = {room_of(name) for name in imported(path) if name.startswith("pai_bench.")}
        upwards[path] = ours - {room} - set(ALLOWED[room])
    assert len(upwards) > 300 and {path: rooms for path, rooms in upwards.items() if rooms} == {}


def test_only_these_modules_are_outside_a_package() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == {
        *("__init__", "__main__", "cells", "errors"),
        *("data_files", "registry"),  # import paths of plug-ins
    }


def test_packages_without_torch_do_not_import_it() -> None:
    free = {"cells", "errors", "recipes", "reproductions", "results", "analysis", "cli", "datasets.files"}
    modules = {PACKAGE / "datasets" / "__init__.py"}
    modules |= {PACKAGE / "core" / f"{name}.py" for name in ("facts", "method_index", "model_index")}
    for room, path in sources():
        exempt = room != "methods" and path.relative_to(PACKAGE.parent).as_posix() in TORCH_WHEN_NEEDED
        if not exempt and (room in free or path in modules):
            modules.add(path)
    assert len(modules) > 100
    found = {path: {n for n in imported(path) if n.split(".")[0] in ("torch", "torchvision")} for path in modules}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.py")), ids=lambda path: path.name)
def test_a_method_is_one_small_file_without_a_library_name(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 90
    assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.py")), ids=lambda path: path.name)
def test_a_method_imports_only_public_names_of_scoring(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    modules = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    modules |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {m for m in modules if m.startswith("pai_bench")} <= {"pai_bench.scoring", "pai_bench.errors"}


@pytest.mark.slow
def test_only_one_module_saves_and_restores_global_random_states() -> None:
    states = re.compile(r"fork_rng|[gs]et_rng_state|random\.[gs]et_?state")
    found = {path.relative_to(PACKAGE).as_posix() for _, path in sources() if states.search(path.read_text("utf-8"))}
    assert found == {"core/randomness.py"}


def test_a_module_has_at_most_300_lines() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for _, path in sources()}
    assert {path: length for path, length in lengths.items() if length > 300} == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "pai_bench",
        "pai_bench.cli",
        "pai_bench.cells",
        "pai_bench.recipes",
        "pai_bench.results",
        "pai_bench.results.index",
        "pai_bench.results.mask_files",
        "pai_bench.results.ties",
        "pai_bench.core.method_index",
        "pai_bench.datasets",
        "pai_bench.datasets.files",
        "pai_bench.analysis.command",
        "pai_bench.analysis.published",
        "pai_bench.sweep.execution.claims",
    ],
)
def test_loading_it_does_not_load_torch(module: str) -> None:
    check = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.slow
def test_planning_and_training_do_not_load_the_compiler_of_pytorch() -> None:
    """Its import takes more than two seconds of each process."""
    check = """
import sys, torch
from pai_bench import recipes
from pai_bench.pruning.flops import flops
from pai_bench.scoring.product_convolutions import ProductConvolutions
from pai_bench.training.eager_step import Step

model = torch.nn.Linear(4, 2)
assert flops(model, {}, (4,))[0] == 16
with ProductConvolutions():
    model(torch.ones(2, 4))
step = Step(model, {}, recipes.load("quick", "digits", "conv8").train)
step(torch.ones(2, 4), torch.tensor([0, 1]), 0.1)
step.optimizer.load_state_dict(step.optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.slow
def test_help_and_lists_load_no_large_library() -> None:
    """Typer itself loads pydantic to parse the arguments of a command; the help of the program needs no parsing."""
    check = """
import sys
from pai_bench.cli.program import main
kinds, forms = ("methods", "models", "datasets", "recipes"), ("", "--json")
lists = [*(f"list {kind} {form}" for form in forms for kind in kinds), *(f"list {kind} --long" for kind in kinds)]
for arguments in ("--help", "sweep --help", *lists):
    sys.argv = ["pai-bench", *arguments.split()]
    try:
        main()
    except SystemExit as end:
        assert not end.code, arguments
    large = {"numpy", "torch", "pandas", "submitit", "urllib.request"}
    large |= {"pydantic"} if arguments == "--help" else set()
    large |= {"rich"} if not arguments.endswith("--long") else set()
    assert not large & sys.modules.keys(), (arguments, large & sys.modules.keys())
"""
    subprocess.run([sys.executable, "-c", check], check=True, stdout=subprocess.DEVNULL)


def documented() -> tuple[str, str]:
    """The page with the table of the rules, and the drawing of them."""
    names = {"__init__": "pai_bench", "__main__": "python -m pai_bench"}
    rules = {names.get(room, room): {other for other in others if other in ALLOWED} for room, others in ALLOWED.items()}
    homes = {room: METHODS if room == "methods" else PACKAGE / room.replace(".", "/") for room in ALLOWED}
    paths = {
        names.get(room, room): file if (file := home.with_suffix(".py")).is_file() else home / "__init__.py"
        for room, home in homes.items()
    }
    page = re.sub(
        r"(?<=<!-- imports: written by tests/unit/test_architecture.py -->\n\n).*?(?=\n\n<!-- end of imports -->)",
        lambda match: diagram.table(rules, paths),
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    return page, diagram.svg(rules)


def test_the_architecture_page_shows_these_rules() -> None:
    remedy = "the imports have changed: run `python -m tests.unit.test_architecture` and commit what it writes"
    page, drawing = documented()
    assert "<!-- end of imports -->" in page
    assert (PAGE.read_text(encoding="utf-8"), DRAWING.read_text(encoding="utf-8")) == (page, drawing), remedy


def test_the_diagram_leaves_out_imports_that_follow_from_others() -> None:
    rules = {"top": {"middle", "bottom"}, "middle": {"bottom"}, "bottom": set(), "alone": set()}
    assert diagram.direct(rules) == {"top": {"middle"}, "middle": {"bottom"}, "bottom": set(), "alone": set()}
    assert diagram.rows(rules) == [["alone", "top"], ["middle"], ["bottom"]]
    assert diagram.svg(rules).count("<path d=") == 3  # the arrow head and two arrows


if __name__ == "__main__":
    for path, text in zip((PAGE, DRAWING), documented(), strict=True):
        path.write_text(text, encoding="utf-8")
