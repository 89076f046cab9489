"""Pruning with any method: outer rounds, exact counts, and checks of the scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.cells import exact_sparsity, kept_count
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import EffectivePaths
from pai_bench.pruning.effective_target import Pruned
from pai_bench.pruning.granularity import Units, round_masks, units_of
from pai_bench.pruning.masking import starting_masks
from pai_bench.pruning.model_copies import cast_to_score, copy_to_score, reinitialiser
from pai_bench.pruning.rounding import noise_floor, perturb
from pai_bench.pruning.score_checks import checked_dtype, checked_scores
from pai_bench.pruning.score_failures import Failure
from pai_bench.pruning.selection import Select, keep_exactly, restarted
from pai_bench.pruning.targets import PLAIN, Goal, check_target, counts_after, masks_for
from pai_bench.results import ties
from pai_bench.scoring import diagnosis
from pai_bench.scoring.attributes import reset_after_passes
from pai_bench.scoring.isolation import undisturbed, without_cudnn
from pai_bench.scoring.losses import Loss, to_score
from pai_bench.scoring.meter import Meter
from pai_bench.scoring.paths.tracing import Graph, trace
from pai_bench.scoring.problem import Batch, Batches, Problem, Scorer, prunable, round_densities
from pai_bench.scoring.weights import Patterns


class Pruner:
    """One scoring task: a private copy of a model, the batches, and a method; the caller's model is never touched."""

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Batch],
        scorer: Scorer,
        *,
        name: str,
        seed: int = 0,
        dtype: str = "float64",
        initialise: Callable[[nn.Module], None] | None = None,
        tick: Callable[[], None] = lambda: None,
        loss: Loss | str = "cross-entropy",
        only: Patterns = (),
        exclude: Patterns = (),
        warmup: int = 0,
    ) -> None:
        """Take what `prune` takes, the method's `initialise`, and what to call at every sign of progress."""
        if warmup < 0:
            raise PaiBenchError(f"warmup must be 0 or more, not {warmup}", "give a number of forward passes")
        self._warmup = warmup
        precision = checked_dtype(dtype)
        self.name = name
        self._scorer = scorer
        self._seed = seed
        names, before = list(prunable(model, only=only, exclude=exclude)), starting_masks(model)
        self._model = cast_to_score(copy_to_score(model), precision)
        reset_after_passes(self._model)
        self._recurrent = any(isinstance(module, nn.RNNBase) for module in self._model.modules())
        for parameter in self._model.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
            parameter.grad = None
        parameters = dict(self._model.named_parameters())
        self._weights = {name: parameters[name] for name in names}
        self._start = {
            name: before[name].to(w.device) if name in before else torch.ones_like(w, dtype=torch.bool)
            for name, w in self._weights.items()
        }
        """Earlier masks of the model; weights that they prune stay pruned."""
        self._state = {key: value.detach().clone() for key, value in self._tensors()}
        self._dense = {key: self._state[key] for key in self._weights}
        first = next(iter(self._weights.values()))
        self._loss = to_score(loss, first)
        self._other_loss = None if loss == "cross-entropy" else self._loss
        self.meter = Meter()
        """Passes and samples of all scoring so far."""
        self.meter.watch(self._model)
        counted = batches if isinstance(batches, Iterator) else self.meter.counted(batches)
        self._stream = Batches(counted, first.device, precision, tick)
        self._generator = torch.Generator().manual_seed(seed)
        self._initialise = initialise or reinitialiser(seed)
        self._graphs: dict[tuple[object, ...], Graph] = {}
        self.size = sum(weight.numel() for weight in self._weights.values())
        self._living = sum(
            int(before[name].sum()) if name in before else w.numel() for name, w in self._weights.items()
        )
        self.tied_at_cut = 0
        """Number of weights that the last `masks` keeps although pruned ones have the same score."""
        self.noise = 0.0
        """Magnitude up to which the last scores are rounding errors."""
        self.warns_of_ties = not getattr(scorer, "may_tie", False)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """Return the model's parameters and buffers by name, themselves."""
        state = self._model.state_dict(keep_vars=True)
        return [(key, value) for key, value in state.items() if isinstance(value, Tensor)]

    def _problem(self, masks: Mapping[str, Tensor], density: float, kept: int, stream: Batches) -> Problem:
        self._model.train()
        tensors = dict(self._tensors())
        if tensors.keys() != self._state.keys() or any(tensors[key] is not w for key, w in self._weights.items()):
            raise PaiBenchError(
                f"method {self.name} has replaced parameters of its model",
                "correct the method: it may change the values of parameters and buffers, not replace them",
            )
        with torch.no_grad():
            # load_state_dict would take longer than a round of SynFlow on a small network.
            for key, value in tensors.items():
                if value.shape != self._state[key].shape:  # observers of quantisation resize buffers in a pass
                    value.resize_(self._state[key].shape)
                value.copy_(self._state[key])
            for key, weight in self._weights.items():
                weight.mul_(masks[key])
        return Problem(
            model=self._model,
            weights={key: weight.detach() for key, weight in self._weights.items()},
            dense_weights=self._dense,
            masks=masks,
            density=density,
            kept=kept,
            generator=self._generator,
            stream=stream,
            initialise=self._initialise,
            trace=self._trace,
            criterion=self._loss,
        )

    def _warm_up(self) -> None:
        """Let forward passes in train mode settle the running statistics with which scoring starts, once."""
        passes, self._warmup = self._warmup, 0
        if passes:
            problem = self._problem(self._start, self._living / self.size, self._living, self._stream)
            with torch.no_grad():
                for x, _ in itertools.islice(itertools.cycle(problem.batches()), passes):
                    problem.forward(x)
            self._state |= {key: value.detach().clone() for key, value in self._model.named_buffers()}

    def _trace(self, x: Tensor) -> Graph:
        """Return the operations of the model on inputs of that shape, recorded at the first call."""
        key = tuple(x.shape), x.dtype, self._model.training
        if key not in self._graphs:
            with self.meter.paused():
                graph = trace(self._model, x)
            self._graphs[key] = replace(graph, on_replay=self.meter.passed)
        return self._graphs[key]

    def _scores(self, problem: Problem, drawn: Tensor) -> dict[str, Tensor]:
        """Return the checked scores; `drawn` is the state of the generator before they are computed."""
        explain = Failure(self.name, self._scorer, problem, self._other_loss)
        try:
            scores = self._raw_scores(problem)
        except diagnosis.RAISED as error:
            if (explained := explain.error(error)) is error:
                raise
            raise explained from error
        return checked_scores(
            self.name,
            scores,
            problem.weights,
            lambda: explain.not_finite(self._state, lambda: self._repeated(problem, drawn)),
        )

    def _raw_scores(self, problem: Problem) -> Any:
        # cuDNN's recurrent layers have no second derivative, and no derivative in eval mode.
        with without_cudnn() if self._recurrent else nullcontext():
            return self._scorer(problem)

    def _repeated(self, problem: Problem, drawn: Tensor, step: float = 0.0) -> Any:
        """Return the scores of the same problem again, with the same draws, after relative changes of that size."""
        self._generator.set_state(drawn)
        with self._undisturbed():
            repeated = self._problem(problem.masks, problem.density, problem.kept, problem.stream)
            perturb(repeated.weights, step)
            return self._raw_scores(repeated)

    def _undisturbed(self) -> AbstractContextManager[None]:
        first = next(iter(self._weights.values()))
        return undisturbed(self._seed, first.device, first.dtype)

    def score(self, sparsity: float) -> dict[str, Tensor]:
        """Return the scores of the dense network (first round)."""
        full = {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in self._weights.items()}
        rounds, schedule = self._rounds()
        density = round_densities(float(1 - exact_sparsity(sparsity)), rounds, schedule)[0]
        kept = kept_count(sparsity, self.size) if rounds == 1 else self._kept_after(density)
        with self._undisturbed():
            self._warm_up()
            drawn = self._generator.get_state()
            problem = self._problem(full, density, kept, next(self._streams(rounds)))
            scores = self._scores(problem, drawn)
        self.noise = self._noise(scores, problem, drawn)
        return scores

    def _noise(self, scores: Mapping[str, Tensor], problem: Problem, drawn: Tensor) -> float:
        """Return the noise floor of scores; `drawn` is the state of the generator before they were computed."""

        def again(step: float) -> dict[str, Tensor]:
            return checked_scores(self.name, self._repeated(problem, drawn, step), problem.weights)

        if not self.warns_of_ties or getattr(self._scorer, "ordinal", False):
            return 0.0
        with self.meter.paused():
            return noise_floor(scores, again)

    def _rounds(self) -> tuple[int, str]:
        return int(getattr(self._scorer, "rounds", 1)), str(getattr(self._scorer, "schedule", "exponential"))

    def _kept_after(self, density: float) -> int:
        """The number of weights to keep in a round that is not the last."""
        rule = getattr(self._scorer, "kept_after", None)
        return int(rule(density, self.size)) if rule is not None else round(density * self.size)

    def _streams(self, rounds: int) -> Iterator[Batches]:
        """Return the batches of each round: the same ones in all, or new ones where the method wants them fresh."""
        return self._stream.dealt(rounds) if getattr(self._scorer, "fresh", False) else itertools.repeat(self._stream)

    def masks(
        self,
        sparsity: float,
        select: Select = keep_exactly,
        goal: Goal = PLAIN,
    ) -> dict[str, Tensor]:
        """Return bool masks by name after all rounds; exactly round(density x N) weights are kept (all by `dense`).

        `select` is another rule for what a round keeps. A `goal` may count the weights on paths from the input to the
        output, and the masks then keep more than these, or keep whole units, to within one of them.
        """
        if not getattr(self._scorer, "prunes", True):
            return dict(self._start)
        density, target = float(1 - exact_sparsity(sparsity)), kept_count(sparsity, self.size)
        check_target(target, self._living, self.size, sparsity)
        x = next(self._stream())[0] if goal != PLAIN else torch.empty(0)
        with self.meter.paused():
            units = units_of(goal.granularity, self._model, self._weights, x)

        def paths() -> EffectivePaths:
            return EffectivePaths(self._model, list(self._weights), tuple(x.shape[1:]))

        def prune(kept: int, units: Units | None = None, counts: Mapping[str, int] | None = None, /) -> Pruned:
            return self._pruned(kept / self.size if goal.effective else density, kept, select, units, counts)

        near = 0.0 if self._rounds()[0] == 1 else 0.01
        masks = masks_for(prune, target, self._living, units, paths, goal, near)
        if units is not None:
            self.tied_at_cut = 0  # of single weights, which were not ranked
        return masks

    def _pruned(
        self,
        final: float,
        target: int,
        select: Select,
        units: Units | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Pruned:
        """The masks with `target` weights, density `final`, after all rounds, and the scores of the last one.

        With `counts`, every layer goes down to its own number of weights by the schedule of the rounds.
        """
        select = restarted(select)
        masks = dict(self._start)
        rounds, schedule = self._rounds()
        densities = round_densities(final, rounds, schedule, self._living / self.size)
        streams = self._streams(rounds)
        # Each search step for effective weights starts again with the same draws.
        self._generator.manual_seed(self._seed)
        with self._undisturbed():
            self._warm_up()
            for position, density in enumerate(densities, start=1):
                kept = target if position == rounds else max(target, min(self._kept_after(density), self._living))
                if units is not None:
                    kept = min(kept, units.extent(masks)[1])
                drawn = self._generator.get_state()
                problem = self._problem(masks, density, kept, next(streams))
                scores = self._scores(problem, drawn)
                quotas = self._scorer.quotas(problem) if hasattr(self._scorer, "quotas") else None
                if counts is not None:
                    quotas = counts_after(counts, self._start, position, rounds, schedule)
                    kept = sum(quotas.values())
                revives = bool(getattr(self._scorer, "revives", False))
                before = self._start if revives else masks
                masks = round_masks(units, scores, before, density, kept, quotas=quotas, select=select)
        self.noise = self._noise(scores, problem, drawn)
        self.tied_at_cut = ties.at_cut(scores, before, masks, layers=quotas is not None, noise=self.noise)
        return Pruned(masks, scores)
