"""Names, hyper-parameters, first sentences and facts of the built-in methods, read from their sources without torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path

from pai_bench.cells import DENSE, GIVEN, QUOTA_OF, SMALL_DENSE, MethodSpec, canonical_sparsity
from pai_bench.core.facts import Facts
from pai_bench.core.registry import installed
from pai_bench.errors import PaiBenchError, unknown

GROUP = "pai_bench.methods"
"""Entry points of installed packages with methods of their own."""

_FOLDER = Path(__file__).parents[1] / "methods"


@dataclass(frozen=True)
class Entry:
    """A built-in method as its source states it."""

    name: str
    sentence: str
    hyperparameters: tuple[tuple[str, object], ...]
    """Name and default, in the order of the class."""
    costly: bool
    facts: Facts


@cache
def builtin() -> dict[str, Entry]:
    """Return the built-in methods by name, in alphabetical order."""
    found = [entry for path in _FOLDER.glob("*.py") for entry in _entries(path)]
    return {entry.name: entry for entry in sorted(found, key=lambda entry: entry.name)}


def is_complete(plugins: Sequence[Path] = ()) -> bool:
    """Return True if all methods are built in: no plug-ins, and no installed packages with methods."""
    return not plugins and not installed(GROUP)


def check(specs: Sequence[str]) -> None:
    """Check the names and hyper-parameters of method specs against the built-in methods.

    Raises: PaiBenchError for an unknown name or hyper-parameter, and for a spec that cannot be read.
    """
    known = builtin()
    for spec in specs:
        if spec.removeprefix(f"{QUOTA_OF}:").startswith(GIVEN) or smaller_dense(spec) is not None:
            continue
        method = MethodSpec.parse(spec)
        if method.name not in known:
            raise unknown("method", method.name, known)
        defaults = dict(known[method.name].hyperparameters)
        for key, _ in method.hyperparameters:
            if key not in defaults and defaults:
                raise unknown(f"hyper-parameter of {method.name}", key, defaults)
            if key not in defaults:
                raise PaiBenchError(
                    f"method {method.name} has no hyper-parameter {key!r}",
                    "omit it; the method has no hyper-parameters",
                )


def smaller_dense(text: str) -> tuple[str, float] | None:
    """Return the method and the sparsity for which "dense:params=0.1" or "dense:flops=0.1" is short; None for others.

    Raises: PaiBenchError for a ratio that is not in (0, 1].
    """
    if not text.strip().startswith(f"{DENSE}:"):
        return None
    spec = MethodSpec.parse(text)
    values = dict(spec.hyperparameters)
    if len(values) != 1 or not {"params", "flops"} & values.keys() or spec.control is not None:
        return None
    ((key, ratio),) = values.items()
    if isinstance(ratio, (bool, str)) or not 0 < ratio <= 1:
        raise PaiBenchError(f"{text}: {ratio} is not in (0, 1]", f"write for instance {DENSE}:{key}=0.1")
    method = MethodSpec(SMALL_DENSE, (("equal", key),) if key != "params" else ())
    # The difference is exact in fractions; in floats, 1 - 0.9 is 0.09999999999999998.
    return str(method), canonical_sparsity(float(1 - Fraction(repr(float(ratio)))))


def first_sentence(text: str) -> str:
    """Return the first sentence of a docstring, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    for end in range(len(paragraph)):
        # "et al. 2022" and "arXiv 2202.08132" do not end a sentence.
        if paragraph[end] == "." and paragraph[end + 1 : end + 2] in ("", " ") and not paragraph[:end].endswith("al"):
            return paragraph[: end + 1]
    return paragraph


def _entries(path: Path) -> Iterator[Entry]:
    classes: dict[str, tuple[dict[str, object], dict[str, object]]] = {}
    shared: dict[str, ast.expr] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            shared[node.targets[0].id] = node.value
        if not isinstance(node, ast.ClassDef):
            continue
        fields: dict[str, object] = {}
        variables: dict[str, object] = {}
        for base in reversed(node.bases):  # those of the same file
            inherited = classes.get(ast.unparse(base), ({}, {}))
            fields |= inherited[0]
            variables |= inherited[1]
        for statement in node.body:
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                value = None if statement.value is None else ast.literal_eval(statement.value)
                found = variables if ast.unparse(statement.annotation).startswith("ClassVar") else fields
                found[statement.target.id] = value
        classes[node.name] = fields, variables
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Call) and getattr(decorator.func, "id", "") == "register":
                name, *others = decorator.args
                sentence = first_sentence(ast.get_docstring(node) or "")
                costly = bool(variables.get("costly", False))
                facts = _facts(shared.get(ast.unparse(others[0]), others[0])) if others else Facts()
                yield Entry(str(ast.literal_eval(name)), sentence, tuple(fields.items()), costly, facts)


def _facts(call: ast.expr) -> Facts:
    """Return the facts that an expression such as `Facts("Lee et al. 2019", sees="labels")` makes."""
    assert isinstance(call, ast.Call)
    named = {str(keyword.arg): str(ast.literal_eval(keyword.value)) for keyword in call.keywords}
    return Facts(*(str(ast.literal_eval(value)) for value in call.args), **named)
