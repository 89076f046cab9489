"""Who may import whom, read from the sources; and what must never load torch.

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

# A module may import those to the right of it, and nothing else of ours.
BASE = {"errors", "atomic", "cells"}
ALLOWED = {
    "errors": set(),
    "atomic": {"errors"},
    "cells": {"errors"},
    "filters": {"cells", "errors"},
    "mask_forms": {"errors"},
    "mask_files": {*BASE, "mask_forms"},
    "mask_io": {"atomic", "errors", "mask_files", "masking", "weights"},
    "recipes": BASE,
    "results": {*BASE, "mask_files"},
    "index": {"atomic", "cells", "errors", "results"},
    "precision": set(),
    "seeds": set(),
    "provenance": set(),
    "data_files": {"atomic", "catalogue", "errors"},
    "augmentation": {"recipes", "seeds"},
    "resident": {"augmentation"},
    "splits": {"errors", "recipes", "seeds"},
    "streaming": {"augmentation", "data_files", "errors", "recipes", "resident", "splits"},
    "datasets": {"augmentation", "data_files", "recipes", "resident", "splits", "streaming"},
    "catalogue": {"errors"},
    "drawing": set(),
    "models": {"catalogue", "drawing", "errors"},
    "outputs": {"errors"},
    "diagnosis": {"errors", "outputs"},
    "losses": {"errors"},
    "ties": set(),
    "scoring": {"convolutions", "errors", "losses", "outputs", "tracing", "weights"},
    "replacing": set(),
    "gates": {"errors", "replacing"},
    "tracing": {"outputs"},
    "path_functions": {"tracing"},
    "operations": set(),
    "semantics": {"tracing"},
    "path_network": {"operations", "path_functions", "semantics", "tracing"},
    "path_law": {"errors", "operations", "tracing"},
    "weight_uses": {"operations", "path_functions", "path_network", "tracing"},
    "convolutions": {"replacing"},
    "double_backward": {"convolutions", "replacing"},
    "host": set(),
    "derivatives": {"convolutions", "double_backward", "errors"},
    "weights": {"errors"},
    "registry": {"catalogue", "cells", "errors", "mask_files", "scoring"},
    "allocation": set(),
    "pruning": {
        *("cells", "derivatives", "diagnosis", "drawing", "errors", "isolation", "losses", "masking", "registry"),
        *("scoring", "seeds", "ties", "tracing", "weights"),
    },
    "isolation": {"arithmetic"},
    "controls": {"cells", "pruning", "seeds"},
    "mask_hooks": {"errors"},
    "masking": {"errors", "mask_forms", "mask_hooks"},
    "measures": {"host", "path_functions", "path_network", "tracing", "weight_uses"},
    "sealed": {"atomic"},
    "score_cache": {"measures", "sealed"},
    "watch": {"results"},
    "checkpoints": {"sealed"},
    "arithmetic": {"outputs"},
    "steps": {"arithmetic", "losses", "masking", "recipes"},
    "turns": set(),
    "training": {
        *("arithmetic", "checkpoints", "datasets", "errors", "recipes", "results", "seeds", "steps", "turns", "watch"),
    },
    "recording": {
        *("cells", "datasets", "measures", "models", "provenance", "recipes", "registry", "results", "scoring"),
        "training",
    },
    "experiment": {
        *("precision", "cells", "datasets", "measures", "models", "provenance", "pruning", "recipes", "recording"),
        *("controls", "registry"),
        *("results", "score_cache", "scoring", "seeds", "training", "checkpoints", "masking", "turns", "watch"),
    },
    "sweep": {
        "weights",
        *BASE,
        "arithmetic",
        "data_files",
        "datasets",
        "filters",
        "index",
        "mask_files",
        "measures",
        "precision",
        "experiment",
        "host",
        "models",
        "outputs",
        "pruning",
        "recipes",
        "registry",
        "results",
        "score_cache",
        "scoring",
        "watch",
        "checkpoints",
        "provenance",
        "training",
        "turns",
    },
    "analysis": {"precision", "ties", *BASE, "index", "recipes", "results"},
    "methods": {
        *("allocation", "convolutions", "derivatives", "errors", "gates", "path_functions", "path_law", "path_network"),
        *("registry", "replacing", "scoring"),
    },
    "doctor": {*BASE, "data_files", "provenance", "results", "sweep"},
    "method_index": {"cells", "errors"},
    "cli": {
        "atomic",
        "method_index",
        "cells",
        "recipes",
        "analysis",
        "data_files",
        "doctor",
        "sweep",
        "errors",
        "__version__",
    },
    "__init__": {"mask_io", "weights", "analysis", "errors", "masking", "pruning", "registry", "ties"},
    "__main__": {"cli"},
}


def sources() -> list[tuple[str, Path]]:
    files = [(path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in PACKAGE.rglob("*.py")]
    return files + [("methods", path) for path in METHODS.glob("*.py")]


def imported(path: Path) -> set[str]:
    """Full names of the modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "pai_bench" else {node.module}
            )
    return names


@pytest.mark.parametrize(("room", "path"), sources(), ids=lambda value: str(value))
def test_imports_go_down_only(room: str, path: Path) -> None:
    ours = {name.split(".")[1] for name in imported(path) if name.startswith("pai_bench.")}
    assert ours - {room} <= ALLOWED[room]


@pytest.mark.parametrize(("room", "path"), sources(), ids=lambda value: str(value))
def test_rooms_without_torch_do_not_import_it(room: str, path: Path) -> None:
    if room in {
        "cells",
        "recipes",
        "results",
        "index",
        "analysis",
        "cli",
        "errors",
        "atomic",
        "data_files",
        "method_index",
    }:
        assert not {name for name in imported(path) if name.split(".")[0] in ("torch", "torchvision")}


@pytest.mark.parametrize("path", sorted(METHODS.glob("*.py")), ids=lambda path: path.name)
def test_a_method_is_one_small_file_without_a_library_name(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 90
    assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names


@pytest.mark.parametrize(
    "module",
    [
        "pai_bench",
        "pai_bench.cli",
        "pai_bench.cells",
        "pai_bench.recipes",
        "pai_bench.results",
        "pai_bench.index",
        "pai_bench.data_files",
        "pai_bench.analysis.command",
        "pai_bench.analysis.published",
        "pai_bench.sweep.claims",
    ],
)
def test_loading_it_does_not_load_torch(module: str) -> None:
    check = f"import {module}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def documented() -> tuple[str, str]:
    """The page with the table of the rules, and the drawing of them."""
    names = {"__init__": "pai_bench", "__main__": "python -m pai_bench"}
    rules = {names.get(room, room): {other for other in others if other in ALLOWED} for room, others in ALLOWED.items()}
    homes = {room: METHODS if room == "methods" else PACKAGE / room for room in ALLOWED}
    paths = {
        names.get(room, room): home / "__init__.py" if home.is_dir() else home.with_suffix(".py")
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
