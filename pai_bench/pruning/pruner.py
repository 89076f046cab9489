"""From scores to masks: outer rounds, exact counts and checks, once for all methods; masks on a model."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pai_bench.cells import exact_sparsity, kept_count
from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.models.initialisation import reset_parameters
from pai_bench.pruning.masking import masks_of, remove_masks, unwrapped
from pai_bench.results import ties
from pai_bench.scoring import diagnosis, registry
from pai_bench.scoring.derivatives import no_second_derivative
from pai_bench.scoring.isolation import undisturbed, without_cudnn
from pai_bench.scoring.losses import Loss, to_score
from pai_bench.scoring.paths.tracing import Graph, trace
from pai_bench.scoring.problem import Batch, Batches, Problem, Scorer, prunable, round_densities
from pai_bench.scoring.weights import Patterns, warn_of_left_out

DTYPES = {"float64": torch.float64, "float32": torch.float32}

Select = Callable[[Tensor, Tensor, float, int], Tensor]
"""(scores [N], candidates bool [N], density after this round, exact count) -> kept, bool [N]."""


def keep_exactly(scores: Tensor, candidates: Tensor, density: float, count: int) -> Tensor:
    """Keep the `count` highest scores among the candidates; equal scores are kept in the order of their position.

    scores [N] and candidates bool [N], flattened over all layers; returns bool [N]. `density` is not used here:
    released rules derive their own count from it (the golden tests do).
    """
    del density
    # In a type that NumPy knows; no float is rounded.
    scores = scores.detach() if scores.dtype == torch.float32 else scores.detach().double()
    if scores.is_cpu:
        pool = torch.from_numpy(np.compress(candidates.numpy(), scores.numpy()))
    else:
        pool = scores.masked_select(candidates)
    dropped = pool.numel() - count
    if dropped < 0 or count < 0:
        raise ValueError(f"of {pool.numel()} weights that may be kept, {count} cannot be")
    if dropped == 0:
        return candidates.clone()
    if count == 0:
        return torch.zeros_like(candidates)
    if scores.is_cpu:
        # Linear whatever the order of the scores; on a CPU kthvalue's time is quadratic for falling ones.
        threshold = torch.from_numpy(np.partition(pool.numpy(), dropped))[dropped]
    else:
        threshold = torch.kthvalue(pool, dropped + 1).values
    kept = (scores >= threshold).logical_and_(candidates)
    if surplus := int((pool >= threshold).count_nonzero()) - count:
        tied = (scores == threshold).logical_and_(candidates).nonzero().squeeze(1)
        kept[tied[-surplus:]] = False
    return kept


def keep_lowest(scores: Tensor, candidates: Tensor, density: float, count: int) -> Tensor:
    """`keep_exactly`, but the lowest scores."""
    return keep_exactly(-scores.double(), candidates, density, count)


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
    ) -> None:
        """Take what `prune` takes, the method's `initialise`, and what to call at every sign of progress."""
        dtype = str(dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise PaiBenchError(
                f"scoring dtype {dtype!r} is not supported", f"known: {', '.join(DTYPES)}; half precision changes masks"
            )
        self.name = name
        self._scorer = scorer
        self._seed = seed
        names, before = list(prunable(model, only=only, exclude=exclude)), masks_of(model)
        self._model = _copied(model).to(DTYPES[dtype])
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
        """Masks that the model had before: what they prune stays pruned."""
        self._state = {key: value.detach().clone() for key, value in self._tensors()}
        self._dense = {key: self._state[key] for key in self._weights}
        first = next(iter(self._weights.values()))
        self._loss = to_score(loss, first)
        self._stream = Batches(batches, first.device, DTYPES[dtype], tick)
        self._generator = torch.Generator().manual_seed(seed)
        self._initialise = initialise or _redrawing(seed)
        self._graphs: dict[tuple[object, ...], Graph] = {}
        self.size = sum(weight.numel() for weight in self._weights.values())
        self._living = sum(
            int(before[name].sum()) if name in before else w.numel() for name, w in self._weights.items()
        )
        self.tied_at_cut = 0
        """Number of weights that the last `masks` keeps although pruned ones have the same score."""
        self.warns_of_ties = not getattr(scorer, "may_tie", False)

    def _tensors(self) -> list[tuple[str, Tensor]]:
        """The model's parameters and buffers by name, themselves."""
        state = self._model.state_dict(keep_vars=True)
        return [(key, value) for key, value in state.items() if isinstance(value, Tensor)]

    def _problem(self, masks: Mapping[str, Tensor], density: float, kept: int, stream: Batches) -> Problem:
        self._model.train()
        tensors = dict(self._tensors())
        if tensors.keys() != self._state.keys() or any(tensors[key] is not w for key, w in self._weights.items()):
            raise PaiBenchError(
                f"method {self.name} has put other parameters into its model",
                "mend the method: it may change the values of parameters and buffers, not replace them",
            )
        with torch.no_grad():
            # load_state_dict would take longer than a round of SynFlow on a small network.
            for key, value in tensors.items():
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

    def _trace(self, x: Tensor) -> Graph:
        """The operations of the model on inputs of that shape, recorded at the first call."""
        key = tuple(x.shape), x.dtype, self._model.training
        if key not in self._graphs:
            self._graphs[key] = trace(self._model, x)
        return self._graphs[key]

    def _scores(self, problem: Problem) -> dict[str, Tensor]:
        try:
            with without_cudnn() if self._recurrent else nullcontext():
                scores = self._scorer(problem)
        except diagnosis.RAISED as error:
            if (explained := self._explained(error, problem)) is error:
                raise
            raise explained from error
        return checked_scores(self.name, scores, problem.weights)

    def _explained(self, error: Exception, problem: Problem) -> Exception:
        """The error to raise instead of what torch, the model or the method has raised."""
        if diagnosis.is_out_of_memory(error):
            return error
        try:
            x, _ = next(problem.stream.drawn())
        except Exception:  # of the caller's data
            return error
        refusal = no_second_derivative(self.name, error, problem.model, x) if isinstance(error, RuntimeError) else None
        if refusal is not None:
            return refusal
        if (cause := diagnosis.cause(problem.model, problem.stream.drawn())) is not None:
            return cause
        if not registry.is_builtin_class(type(self._scorer)):
            return error  # a method under development: its author needs the exception itself
        return PaiBenchError(
            f"method {self.name} cannot score this model: {diagnosis.line(error)}",
            "score with another method, or leave out the layer that the traceback names",
        )

    def score(self, sparsity: float) -> dict[str, Tensor]:
        """The scores of the dense network (first round)."""
        full = {key: torch.ones_like(weight, dtype=torch.bool) for key, weight in self._weights.items()}
        rounds, schedule = self._rounds()
        density = round_densities(float(1 - exact_sparsity(sparsity)), rounds, schedule)[0]
        kept = kept_count(sparsity, self.size) if rounds == 1 else round(density * self.size)
        with undisturbed(self._seed):
            return self._scores(self._problem(full, density, kept, next(self._streams(rounds))))

    def _rounds(self) -> tuple[int, str]:
        return int(getattr(self._scorer, "rounds", 1)), str(getattr(self._scorer, "schedule", "exponential"))

    def _streams(self, rounds: int) -> Iterator[Batches]:
        """The batches of each round: the same ones in all, or new ones where the method wants them fresh."""
        return self._stream.dealt(rounds) if getattr(self._scorer, "fresh", False) else itertools.repeat(self._stream)

    def masks(self, sparsity: float, select: Select = keep_exactly) -> dict[str, Tensor]:
        """Bool masks by name after all rounds; exactly round(density x N) weights are kept (all by `dense`).

        `select` is another rule for what a round keeps.
        """
        masks = dict(self._start)
        if not getattr(self._scorer, "prunes", True):
            return masks
        rounds, schedule = self._rounds()
        densities = round_densities(float(1 - exact_sparsity(sparsity)), rounds, schedule, self._living / self.size)
        target = kept_count(sparsity, self.size)
        if target > self._living:
            raise PaiBenchError(
                f"the masks on the model keep {self._living} of {self.size} prunable weights, fewer than the {target}"
                f" of sparsity {sparsity:g}",
                "ask for a higher sparsity, or call pai_bench.remove_masks first and restore the weights",
            )
        streams = self._streams(rounds)
        with undisturbed(self._seed):
            for position, density in enumerate(densities, start=1):
                kept = target if position == rounds else max(target, min(round(density * self.size), self._living))
                problem = self._problem(masks, density, kept, next(streams))
                scores = self._scores(problem)
                quotas = self._scorer.quotas(problem) if hasattr(self._scorer, "quotas") else None
                revives = bool(getattr(self._scorer, "revives", False))
                before = self._start if revives else masks
                masks = to_masks(scores, before, density, kept, quotas=quotas, select=select)
        self.tied_at_cut = ties.at_cut(scores, before, masks, layers=quotas is not None)
        return masks


def masks_at(scores: Mapping[str, Tensor], sparsity: float, select: Select = keep_exactly) -> dict[str, Tensor]:
    """The masks of a single-shot method at any sparsity from its one score vector."""
    full = {key: torch.ones_like(score, dtype=torch.bool) for key, score in scores.items()}
    size = sum(score.numel() for score in scores.values())
    return to_masks(scores, full, float(1 - exact_sparsity(sparsity)), kept_count(sparsity, size), select=select)


def to_masks(
    scores: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    density: float,
    kept: int,
    *,
    quotas: Mapping[str, int] | None = None,
    revives: bool = False,
    select: Select = keep_exactly,
) -> dict[str, Tensor]:
    """The masks of one round: the best `kept` of the network, or the best quota of each layer.

    A weight that is pruned stays so unless the method `revives`.
    """
    if quotas is not None:
        if quotas.keys() != masks.keys():
            raise ValueError(f"there are quotas for {', '.join(quotas)}, and prunable are {', '.join(masks)}")
        if sum(quotas.values()) != kept:
            raise ValueError(f"the layer quotas sum to {sum(quotas.values())}, not to the {kept} weights to keep")
        found: dict[str, Tensor] = {}
        for key, mask in masks.items():
            layer = {key: scores[key]}, {key: mask}
            found |= to_masks(*layer, density, quotas[key], revives=revives, select=select)
        return found
    flat = torch.cat([scores[key].flatten() for key in masks])
    alive = torch.cat([masks[key].flatten() for key in masks])
    chosen = select(flat, torch.ones_like(alive) if revives else alive, density, kept)
    parts = torch.tensor_split(chosen, list(itertools.accumulate(mask.numel() for mask in masks.values()))[:-1])
    return {key: part.view_as(mask) for (key, mask), part in zip(masks.items(), parts, strict=True)}


def checked_scores(method: str, scores: Any, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores in the order of the weights, detached.

    Raises: PaiBenchError when a weight has no score, or one of another shape, or not finite.
    """
    remedy = f"mend the method: {method} must return one finite score per prunable weight, by parameter name"
    if not isinstance(scores, Mapping):
        raise PaiBenchError(f"method {method} returned {type(scores).__name__}, not a dict of scores", remedy)
    missing = [key for key in weights if key not in scores]
    extra = [str(key) for key in scores if key not in weights]
    if missing or extra:
        what = f"no scores for {', '.join(missing)}" if missing else f"scores for unknown weights {', '.join(extra)}"
        raise PaiBenchError(f"method {method} returned {what}", remedy)
    for key, weight in weights.items():
        score = scores[key]
        if not isinstance(score, Tensor) or score.shape != weight.shape:
            shape = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise PaiBenchError(
                f"method {method} returned {shape} for {key}, whose shape is {list(weight.shape)}", remedy
            )
    # A sum that is finite has finite parts (one that is not may be too large, hence the second look); one look for all
    # layers is one wait for the device.
    if not bool(torch.isfinite(torch.stack([scores[key].sum() for key in weights])).all()):
        for key in weights:
            if count := int((~torch.isfinite(scores[key])).sum()):
                raise PaiBenchError(
                    f"method {method} returned {count} scores for {key} that are not finite",
                    "look for NaN in weights and data; score in float64, or with a lower lr; else mend the method",
                )
    return {key: scores[key].detach() for key in weights}


def _copied(model: nn.Module) -> nn.Module:
    """A copy to score, without what `apply_masks` has hung on the model.

    Raises: PaiBenchError when it cannot be copied.
    """
    try:
        copied = copy.deepcopy(model)
        remove_masks(copied)
        return copied
    except Exception as error:
        raise PaiBenchError(
            f"{type(model).__name__} cannot be copied: {type(error).__name__}: {error}",
            "scoring works on a copy.deepcopy of the model: keep no activations or graphs in its attributes",
        ) from error


def _redrawing(seed: int) -> Callable[[nn.Module], None]:
    """Draws the parameters of every module anew as the module itself does, each time in another way.

    The draws are made on the CPU in float64 and then copied, so that they depend neither on the model's device nor on
    its dtype.
    """
    draws = itertools.count()

    def redraw(model: nn.Module) -> None:
        twin = copy.deepcopy(model)
        # Tensors on the meta device have no values to copy.
        on_meta = any(parameter.is_meta for parameter in twin.parameters())
        twin = (twin.to_empty(device="cpu") if on_meta else twin.cpu()).double()
        with torch.random.fork_rng(devices=[]):
            # Seeds of its own: the method's draws must not be made of the same random numbers.
            torch.default_generator.manual_seed(derive_seed(seed, "redraw", next(draws)))
            reset_parameters(twin)
        with torch.no_grad():
            for ours, theirs in zip((model.parameters, model.buffers), (twin.parameters, twin.buffers), strict=True):
                for tensor, drawn in zip(ours(), theirs(), strict=True):
                    tensor.copy_(drawn)

    return redraw


@torch.inference_mode(False)
def score(
    model: nn.Module,
    batches: Iterable[Batch],
    method: str = "snip",
    sparsity: float = 0.9,
    seed: int = 0,
    dtype: str = "float64",
    loss: Loss | str = "cross-entropy",
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    **hyperparameters: Any,
) -> dict[str, Tensor]:
    """The scores that `method` gives to the dense network, by parameter name; a higher score is kept.

    `batches` is any re-iterable of (x, y). `loss` is "cross-entropy" (logits [B, classes, …] and class indices [B, …]),
    "binary-cross-entropy" (one logit [B] or [B, 1]), or a function (outputs, targets) -> scalar that returns the mean
    over the samples of a batch; batches are weighted by their numbers of samples, len(x). Nothing of the caller's model
    is changed.

    Weights to score are chosen by `only` and `exclude`: patterns of layers or weights, such as "fc" or "layer4.*".
    Weights with requires_grad=False are left alone unless `only` matches them or all weights are frozen. The model
    inside DataParallel, DistributedDataParallel or torch.compile is scored.

    Raises: PaiBenchError for bad input, and when a method returns scores that cannot be used.
    """
    return _pruner(model, batches, method, seed, dtype, loss, hyperparameters, only, exclude).score(sparsity)


@torch.inference_mode(False)
def prune(
    model: nn.Module,
    batches: Iterable[Batch],
    method: str = "prospr",
    sparsity: float = 0.98,
    seed: int = 0,
    dtype: str = "float64",
    loss: Loss | str = "cross-entropy",
    *,
    only: Patterns = (),
    exclude: Patterns = (),
    **hyperparameters: Any,
) -> dict[str, Tensor]:
    """Bool masks by parameter name, True = kept; exactly round((1 - sparsity) x N) weights are (all by `dense`).

    Takes what `score` takes. Nothing of the caller's model is changed; see `apply_masks`. Masks that the model has are
    where pruning starts: what they prune stays pruned, and the sparsity counts it. Warns (TiedScoresWarning) where more
    than a few kept weights have exactly the score of pruned ones.
    """
    pruner = _pruner(model, batches, method, seed, dtype, loss, hyperparameters, only, exclude)
    masks = pruner.masks(sparsity)
    kept = sum(int(mask.sum()) for mask in masks.values())
    if ties.are_many(pruner.tied_at_cut, kept) and pruner.warns_of_ties:
        warnings.warn(ties.warning(method, pruner.tied_at_cut, kept), ties.TiedScoresWarning, stacklevel=2)
    return masks


def _pruner(
    model: nn.Module,
    batches: Iterable[Batch],
    method: str,
    seed: int,
    dtype: str,
    loss: Loss | str,
    hyperparameters: Mapping[str, Any],
    only: Patterns,
    exclude: Patterns,
) -> Pruner:
    diagnosis.check_arguments(model, batches, method, seed)
    scorer = registry.get(method, hyperparameters)
    model = unwrapped(model)
    if not (only or exclude):
        warn_of_left_out(model)
    # As in a sweep: with the user's own seed, draws could be the very numbers that made the weights.
    seeded = derive_seed(seed, "method")
    return Pruner(model, batches, scorer, name=method, seed=seeded, dtype=dtype, loss=loss, only=only, exclude=exclude)
