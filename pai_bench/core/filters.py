"""Selection of the cells of a plan or of a results folder (`--filter`)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pai_bench.cells import Cell, MethodSpec, parse_items
from pai_bench.core.method_index import builtin
from pai_bench.errors import PaiBenchError, similar, unknown

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "!=": operator.ne,
    "=": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_FIELDS = ("method", "dataset", "model", "sparsity", "seed")


@dataclass(frozen=True)
class Filter:
    """Conditions on cells: several `=` on one field are alternatives, all other conditions must hold together."""

    clauses: tuple[tuple[str, str, str], ...]
    """(field, operator, value)"""

    @classmethod
    def parse(cls, text: str) -> Filter:
        """Parse a list like "method=snip,sparsity>=0.95".

        Raises: PaiBenchError for an unknown field, or a comparison that the field does not support.
        """
        clauses: list[tuple[str, str, str]] = []
        for item in parse_items("--filter", text):
            match = re.fullmatch(r"(\w+)\s*(>=|<=|!=|=|>|<)\s*(.+)", item)
            if not match:
                raise PaiBenchError(
                    f"--filter {text!r}: invalid condition {item!r}", "use for example method=snip,seed<3"
                )
            field, comparison, value = match.groups()
            if field not in _FIELDS:
                # The comma before this item may separate two hyper-parameters of one method spec.
                if clauses and clauses[-1][0] == "method" and ":" in clauses[-1][2]:
                    clauses[-1] = (*clauses[-1][:2], f"{clauses[-1][2]},{item}")
                    continue
                raise unknown("field of --filter", field, _FIELDS)
            if field in ("sparsity", "seed"):
                try:
                    float(value)
                except ValueError:
                    raise PaiBenchError(
                        f"--filter {text!r}: {value!r} is not a number", f"compare {field} with a number"
                    ) from None
            elif comparison not in ("=", "!="):
                raise PaiBenchError(f"--filter {text!r}: {field} has no order", f"use {field}=… or {field}!=…")
            clauses.append((field, comparison, value))
        return cls(tuple(clauses))

    def canonical(self, spec: Callable[[str], str]) -> Filter:
        """Return a copy whose method specs are in canonical form; `spec` converts one of them."""
        return Filter(
            tuple(
                (field, comparison, spec(value) if field == "method" and ":" in value else value)
                for field, comparison, value in self.clauses
            )
        )

    def hints(self, cells: Iterable[Cell]) -> str:
        """Return suggestions for values that occur in no cell of the plan, as the beginning of a remedy."""
        found = []
        cells = list(cells)
        for field, _, value in self.clauses:
            if field in ("method", "dataset", "model"):
                names = {str(getattr(cell, field)).partition(":")[0] for cell in cells}
                near = similar(value, sorted(names))
                if near and value not in names and ":" not in value:
                    found.append(f"{field} {value!r} is not in the plan, did you mean {' or '.join(near)}? ")
        return "".join(found)

    def matches(self, cell: Cell) -> bool:
        """Return True if the cell is selected; method=prospr selects prospr with any hyper-parameters."""
        alternatives: dict[str, bool] = {}
        for field, comparison, value in self.clauses:
            holds = _holds(cell, field, comparison, value)
            if comparison == "=":
                alternatives[field] = alternatives.get(field, False) or holds
            elif not holds:
                return False
        return all(alternatives.values())


def _holds(cell: Cell, field: str, comparison: str, value: str) -> bool:
    actual = getattr(cell, field)
    if field in ("sparsity", "seed"):
        return _OPERATORS[comparison](float(actual), float(value))
    equal = _is_method(cell.method, value) if field == "method" else actual == value
    return equal == (comparison == "=")


def _is_method(method: str, value: str) -> bool:
    """Compare a method with a name or a spec; rows of a table may have names that are not specs."""
    if ":" not in value:
        return method.partition(":")[0] == value or method == value
    try:
        return MethodSpec.parse(method) == MethodSpec.parse(value)
    except PaiBenchError:
        return method == value


def select(text: str, cells: Iterable[Cell]) -> Filter:
    """Return the filter of a results folder that `text` describes, with canonical method specs.

    Raises: PaiBenchError for a filter that cannot be read, and for one that leaves none of the cells.
    """
    cells = list(cells)
    chosen = Filter.parse(text).canonical(canonical_spec)
    if cells and not any(map(chosen.matches, cells)):
        raise PaiBenchError(
            f"--filter {text!r} leaves no cell of the results folder",
            f"{chosen.hints(cells)}widen --filter; pai-bench status --json lists all cells",
        )
    return chosen


def canonical_spec(text: str) -> str:
    """Return the spec without default values of a built-in method, with numbers of the type of the default."""
    spec = MethodSpec.parse(text)
    entry = builtin().get(spec.name)
    if entry is None:
        return str(spec)
    defaults = dict(entry.hyperparameters)
    # 1 and 1.0 are one value of a float hyper-parameter and must give the same spec.
    typed = (
        (k, float(v) if isinstance(defaults.get(k), float) and type(v) is int else v) for k, v in spec.hyperparameters
    )
    given = tuple((k, v) for k, v in typed if k not in defaults or v != defaults[k])
    return str(MethodSpec(spec.name, given, spec.control))
