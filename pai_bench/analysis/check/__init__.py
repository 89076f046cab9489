"""Objections that a careful reviewer would raise to a report, each with a remedy."""

from pai_bench.analysis.check.command import run
from pai_bench.analysis.check.objection import Objection
from pai_bench.analysis.check.rules import find

__all__ = ["Objection", "find", "run"]
