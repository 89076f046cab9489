"""Everything that the author of a method sees: the problem, registration, exact derivatives, and layer budgets."""

from pai_bench.scoring.problem import Batch, Problem, Scorer, prunable
from pai_bench.scoring.registry import register

__all__ = ["Batch", "Problem", "Scorer", "prunable", "register"]
