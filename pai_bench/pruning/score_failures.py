"""Explanations of scores that could not be computed, or are not finite, from the model, the data and the method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.scoring import diagnosis, registry
from pai_bench.scoring.derivatives import no_second_derivative
from pai_bench.scoring.losses import Loss
from pai_bench.scoring.non_finite import NotFinite
from pai_bench.scoring.problem import Problem, Scorer


@dataclass(frozen=True)
class Failure:
    """A method that failed on a problem."""

    method: str
    scorer: Scorer
    problem: Problem
    loss: Loss | None
    """A loss other than cross entropy."""

    def error(self, error: Exception) -> Exception:
        """Return the error to raise instead of an error of torch, the model or the method."""
        if diagnosis.is_out_of_memory(error):
            return error
        model, drawn = self.problem.model, self.problem.stream.drawn
        try:
            x, _ = next(drawn())
        except Exception:  # of the caller's data
            return error
        refusal = no_second_derivative(self.method, error, model, x) if isinstance(error, RuntimeError) else None
        if refusal is not None:
            return refusal
        if (cause := diagnosis.cause(model, drawn(), self.loss)) is not None:
            return cause
        if not registry.is_builtin_class(type(self.scorer)):
            return error  # a method under development: its author needs the exception itself
        if (cause := diagnosis.no_gradient(error)) is not None:
            return cause
        where = diagnosis.layer_of(error, model)
        return PaiBenchError(
            f"method {self.method} cannot score this model: {diagnosis.line(error)}{f' (in {where})' if where else ''}",
            f"score with another method, or leave out {where or 'the layer that the traceback names'}",
        )

    def not_finite(self, state: Mapping[str, Tensor], again: Callable[[], Any]) -> tuple[str, str] | None:
        """Return cause and remedy of scores that are NaN or infinite; None for a method under development.

        `state` has the parameters and buffers of the model by name, and `again` repeats the scoring.
        """
        if not registry.is_builtin_class(type(self.scorer)):
            return None
        ways = ["score with a lower lr"] if "lr" in registry.hyperparameters(self.scorer) else []
        if next(iter(self.problem.weights.values())).dtype != torch.float64:
            ways.append("score in float64")
        try:
            return NotFinite(self.problem, state, again, ways).reason()
        except Exception:  # of the caller's model in the repetition
            return None
