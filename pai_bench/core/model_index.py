"""Names of the built-in models, read from their sources without torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from pai_bench.core.registry import installed

GROUP = "pai_bench.models"
"""Entry points of installed packages with models of their own."""

_FOLDER = Path(__file__).parents[1] / "models"
_REGISTERING = ("register_model", "_register")
"""Functions of the modules of models whose first argument is the name of a model."""


@cache
def builtin() -> tuple[str, ...]:
    """Return the names of the built-in models in alphabetical order."""
    return tuple(sorted(name for path in _FOLDER.glob("*.py") for name in _names(path)))


def is_complete(plugins: Sequence[Path] = ()) -> bool:
    """Return True if all models are built in: no plug-ins, and no installed packages with models."""
    return not plugins and not installed(GROUP)


def _names(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        calls = [*getattr(node, "decorator_list", ()), *([node.value] if isinstance(node, ast.Expr) else ())]
        for call in calls:
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in _REGISTERING:
                yield str(ast.literal_eval(call.args[0]))
