"""Facts about a method that lists show: its paper, its kind, what it sees, its cost, and how it was verified."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

SEES = {
    "nothing": "the network alone",
    "shape": "the shape of one input",
    "inputs": "inputs without labels",
    "labels": "inputs and labels",
    "training": "a training of the network",
}
"""Information that a method may see of the scoring data; each entry includes the ones above it."""

VERIFICATIONS = {
    "release": "scores, masks or layer counts equal those of the authors' code on the same weights and batches",
    "transcribed": "scores equal those of the release's functions, transcribed by hand",
    "formula": "scores or layer counts equal the formula of the paper",
}
"""Kinds of verification of a method's implementation, with their descriptions."""

UNITS = ("batches", "batch_size")
"""Names in formulas of `Facts.passes` besides the hyper-parameters: the number of scoring batches, and their size."""

GRANULARITIES = ("weight", "kernel", "channel", "2:4", "constant-fan-in")
"""Units that masks keep or prune, and patterns that they have (see `pai_bench.pruning.granularity`)."""

INVARIANCES = {
    "permutation": "hidden units in another order: the masks are in the same order",
    "rescaling": "weights and biases of ReLU units times c > 0, the weights that read them divided by c",
    "norm-rescaling": "gains and biases of norms times c > 0, the weights that read them divided by c",
    "sample-order": "the samples of each batch in another order",
    "loss-scale": "a loss that is four times as large",
    "loss-sign": "a loss of the opposite sign",
    "weight-signs": "prunable weights of other signs",
    "weights": "other values of the prunable weights",
}
"""Changes of the problem that a method may claim not to depend on, and what each one does."""

_PAPER = re.compile(r".+ (\d{4})")
_OPERATIONS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Facts:
    """Facts about a method, as the attribute `facts` of its class. Texts that are not known stay empty.

    Raises: ValueError for a paper without a year, and for an unknown word or a malformed formula.
    """

    paper: str = ""
    """Authors and year, as in "Lee et al. 2019"."""
    kind: str = ""
    """Family of the method in one or two words, such as "gradient"."""
    sees: str = ""
    """Information that the method may see of the scoring data: one of SEES."""
    passes: str = ""
    """Cost of scoring in forward passes over one scoring batch, where a backward pass counts as two.

    A formula of numbers, the hyper-parameters and UNITS, as in "3 * rounds * batches"; "2 / batch_size" is the cost of
    two passes of a single input.
    """
    verified: str = ""
    """Kind of verification of the implementation, one of VERIFICATIONS."""

    def __post_init__(self) -> None:
        if self.paper and not _PAPER.fullmatch(self.paper):
            raise ValueError(f"paper {self.paper!r} does not end with its year; write for instance 'Lee et al. 2019'")
        for field, value, allowed in (("sees", self.sees, SEES), ("verified", self.verified, VERIFICATIONS)):
            if value and value not in allowed:
                raise ValueError(f"{field} is {value!r}; write {', '.join(allowed)}, or leave it out")
        if self.passes:
            _names(self.passes)

    @property
    def year(self) -> int | None:
        """Year of the paper, None without one."""
        found = _PAPER.fullmatch(self.paper)
        return int(found[1]) if found else None

    def check_names(self, hyperparameters: Collection[str]) -> None:
        """Check that the formula of the cost has no names but UNITS and the hyper-parameters.

        Raises: ValueError for another name.
        """
        if self.passes and (others := sorted(_names(self.passes) - {*UNITS, *hyperparameters})):
            raise ValueError(
                f"passes {self.passes!r} has the unknown name {others[0]!r}; "
                f"known are {', '.join([*UNITS, *hyperparameters])}"
            )

    def cost(self, values: Mapping[str, object]) -> float | None:
        """Return the cost for these values of the names in its formula; None without a formula."""
        return _value(_parsed(self.passes), values) if self.passes else None


def _parsed(formula: str) -> ast.expr:
    try:
        return ast.parse(formula, mode="eval").body
    except SyntaxError as error:
        raise _malformed(formula) from error


def _malformed(formula: str) -> ValueError:
    return ValueError(f"passes {formula!r} is not a formula of numbers, names and + - * /; write '3 * batches'")


def _names(formula: str) -> set[str]:
    tree = _parsed(formula)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    try:
        _value(tree, dict.fromkeys(names, 1))
    except (TypeError, ZeroDivisionError) as error:
        raise _malformed(formula) from error
    return names


def _value(node: ast.expr, values: Mapping[str, object]) -> float:
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, values), _value(node.right, values))
    found = values[node.id] if isinstance(node, ast.Name) else getattr(node, "value", None)
    if isinstance(found, (int, float)) and not isinstance(found, bool):
        return found
    raise TypeError(f"{ast.unparse(node)} is not a number")
