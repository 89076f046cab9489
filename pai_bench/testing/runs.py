"""Runs of a method that is observed from inside: its scores, and what it does to its problem and to global state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pai_bench.core.randomness import global_random_states
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import Problem, Scorer
from pai_bench.testing.changes import Setting


class Stopped(Exception):
    """The method has returned its first scores, and nothing more is of interest."""


@dataclass
class Run:
    """Observations of one run of a method."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    """Final masks; empty after an error."""
    scores: list[dict[str, Tensor]] = field(default_factory=list)
    """Valid scores of each round."""
    before: list[dict[str, Tensor]] = field(default_factory=list)
    """Masks that each round has begun with."""
    quotas: bool = False
    """True if weights compete within their layers only."""
    revives: bool = False
    """True if pruned weights may come back in a later round."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Observed values that break a law, by the name of the law."""
    raised: Exception | None = None
    """Error that the method itself has raised."""
    error: Exception | None = None
    """Error that has ended the run."""

    def fault(self, law: str, what: str) -> None:
        """Note an observed value that breaks a law."""
        if what not in self.faults.setdefault(law, []):
            self.faults[law].append(what)

    @property
    def refused(self) -> bool:
        """True if the method refused to score the network, with the error that is meant for this."""
        return isinstance(self.raised, PaiBenchError) and not self.faults


class Observer:
    """A wrapper around a method that records its scores and side effects in a Run."""

    may_tie = True  # no second scoring for the rounding errors of scores

    def __init__(self, scorer: Scorer, run: Run, *, stop: bool = False) -> None:
        self._scorer, self._run, self._stop = scorer, run, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        """Return the scores of the method."""
        run = self._run
        device = next(iter(problem.weights.values())).device
        kept = {"masks": problem.masks, "dense_weights": problem.dense_weights}
        copies = {what: {name: t.clone() for name, t in tensors.items()} for what, tensors in kept.items()}
        run.before.append(dict(copies["masks"]))
        data = [(x, x.clone(), y, y.clone()) for x, y in problem.stream.drawn()] if not self._stop else []
        tensors = _identities(problem)
        states = global_random_states(device)
        try:
            scores = self._scorer(problem)
        except Exception as error:
            run.raised = error
            raise
        for generator, state in global_random_states(device).items():
            if state != states[generator]:
                run.fault("generators", f"the global generator of {generator} has another state after scoring")
        if _identities(problem) != tensors:
            run.fault("untouched", "the method has replaced parameters or buffers of its model by other tensors")
        if self._stop:
            run.scores.append(scores)
            raise Stopped
        for what, now in kept.items():
            for name, tensor in now.items():
                if not torch.equal(tensor, copies[what][name]):
                    run.fault("untouched", f"problem.{what}[{name!r}] has other values after scoring")
        if any(not (torch.equal(x, x0) and torch.equal(y, y0)) for x, x0, y, y0 in data):
            run.fault("untouched", "the scoring batches have other values after scoring")
        found = list(faults_of(scores, problem.weights))
        for what in found:
            run.fault("scores", what)
        if not found:
            run.scores.append({name: scores[name].detach().clone() for name in problem.weights})
        return scores


def _identities(problem: Problem) -> dict[str, int]:
    return {name: id(tensor) for name, tensor in problem.model.state_dict(keep_vars=True).items()}


def faults_of(scores: Any, weights: Mapping[str, Tensor]) -> list[str]:
    """Return what is wrong with the scores of one round."""
    if not isinstance(scores, Mapping):
        return [f"the method returned {type(scores).__name__}, not a dict of scores"]
    found = [f"there are no scores for {name}" for name in weights if name not in scores]
    found += [f"there are scores for {name}, which is not prunable" for name in scores if name not in weights]
    for name, weight in weights.items():
        score = scores.get(name, weight)
        if not isinstance(score, Tensor):
            found.append(f"the scores of {name} are {type(score).__name__}, not a tensor")
        elif score.shape != weight.shape:
            found.append(f"the scores of {name} have the shape {list(score.shape)}, its weight {list(weight.shape)}")
        elif score.is_complex() or score.dtype == torch.bool:
            found.append(f"the scores of {name} have the type {str(score.dtype)[6:]}, not a real number")
        elif count := int((~torch.isfinite(score)).sum()):
            found.append(f"{count} of {score.numel()} scores of {name} are NaN or infinite")
    return found


def run(name: str, scorer: Scorer, setting: Setting, sparsity: float, *, seed: int = 0, stop: bool = False) -> Run:
    """Prune a model with the method; errors are recorded like other observations.

    With `stop` the run ends with the first scores, which are not checked.
    """
    found = Run(quotas=hasattr(scorer, "quotas"), revives=bool(getattr(scorer, "revives", False)))
    state = {key: value.clone() for key, value in setting.model.state_dict().items()}
    modes = [(module.training, len(module._forward_pre_hooks)) for module in setting.model.modules()]
    parameters = [(id(p), p.requires_grad, p.grad) for p in setting.model.parameters()]
    # The harness explains errors of built-in methods, and passes on those of others.
    kind = type("Observer", (Observer,), {"__module__": type(scorer).__module__})
    observer = kind(scorer, found, stop=stop)
    try:
        pruner = Pruner(setting.model, setting.batches, observer, name=name, seed=seed, loss=setting.loss)
        found.masks = pruner.masks(sparsity)
        if not getattr(scorer, "prunes", True):  # whose masks need no scores
            pruner.score(sparsity)
    except Stopped:
        pass
    except Exception as error:
        found.error = error
    if stop:
        return found
    for key, value in setting.model.state_dict().items():
        # NaN is not equal to itself, and a hard case has a weight that is NaN.
        if not (key in state and torch.equal(value.nan_to_num(), state[key].nan_to_num())):
            found.fault("untouched", f"{key} of the caller's model has other values after pruning")
    if modes != [(module.training, len(module._forward_pre_hooks)) for module in setting.model.modules()]:
        found.fault("untouched", "the modes or hooks of the caller's model have changed")
    if parameters != [(id(p), p.requires_grad, p.grad) for p in setting.model.parameters()]:
        found.fault("untouched", "the parameters of the caller's model, or their gradients, have been replaced")
    return found
