"""Selection of the cells of a plan (`--filter`)."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from pai_bench.cells import Cell, MethodSpec, parse_items
from pai_bench.errors import PaiBenchError, unknown

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
                names = {cell.spec.name if field == "method" else str(getattr(cell, field)) for cell in cells}
                near = get_close_matches(value, names, n=3, cutoff=0.5)
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
    if field == "method":
        equal = cell.spec.name == value if ":" not in value else cell.spec == MethodSpec.parse(value)
    else:
        equal = actual == value
    return equal == (comparison == "=")
