"""The functions `score` and `prune`, for a model and batches of the caller's own."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.cells import MethodSpec
from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.pruning import controls
from pai_bench.pruning.masking import unwrapped
from pai_bench.pruning.pruner import Pruner
from pai_bench.pruning.targets import Goal
from pai_bench.results import ties
from pai_bench.scoring import diagnosis, registry
from pai_bench.scoring.losses import Loss
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.scoring.problem import Batch
from pai_bench.scoring.searching import searches
from pai_bench.scoring.weights import Patterns, warn_of_left_out


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
    warmup: int = 0,
    **hyperparameters: Any,
) -> dict[str, Tensor]:
    """Return the scores that `method` gives to the dense network, by parameter name; a higher score is kept.

    `batches` is any re-iterable of (x, y). `loss` is "cross-entropy" (logits [B, classes, …] and class indices [B, …]),
    "binary-cross-entropy" (one logit [B] or [B, 1]), or a function (outputs, targets) -> scalar that returns the mean
    over the samples of a batch; batches are weighted by their numbers of samples, len(x). Nothing of the caller's model
    is changed. `method` may carry hyper-parameters, as in "prospr:steps=10".

    Weights to score are chosen by `only` and `exclude`: patterns of layers or weights, such as "fc" or "layer4.*".
    Weights with requires_grad=False are left alone unless `only` matches them or all weights are frozen. The model
    inside DataParallel, DistributedDataParallel or torch.compile is scored. `warmup` forward passes in train mode over
    the batches settle the running statistics of BatchNorm before.

    Raises: PaiBenchError for bad input, and when a method returns scores that cannot be used.
    """
    spec = _spec(method)
    if spec.control is not None:
        raise PaiBenchError(f"{method}: controls change masks, not scores", "call prune, or leave the control out")
    return _pruner(model, batches, spec, seed, dtype, loss, hyperparameters, only, exclude, warmup).score(sparsity)


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
    warmup: int = 0,
    effective: bool = False,
    granularity: str = "weight",
    **hyperparameters: Any,
) -> dict[str, Tensor]:
    """Return bool masks by parameter name, True = kept; exactly round((1 - sparsity) x N) weights are (all by `dense`).

    Takes what `score` takes. Nothing of the caller's model is changed; see `apply_masks`. Masks that the model has are
    where pruning starts: what they prune stays pruned, and the sparsity counts it. Warns (TiedScoresWarning) where more
    than a few kept weights have the score of pruned ones, exactly or up to rounding errors.

    `method` may name a control (see docs/controls.md), as in "snip:control=sample" or "quota-of:snip". With `effective`
    the number of weights counts those on a path from the input to the output, and the masks keep more than these.

    `granularity` "kernel" or "channel" keeps whole units with the highest sums of scores, "2:4" at most two of four
    consecutive inputs, "constant-fan-in" equally many weights for all outputs of a layer. The number of weights is then
    met to within one unit, never exceeded unless one unit of each layer and the network's outputs have more (see
    docs/structured.md).
    """
    spec = _spec(method)
    pruner = _pruner(model, batches, spec, seed, dtype, loss, hyperparameters, only, exclude, warmup)
    controls.check(spec, granularity)
    goal = Goal(effective, granularity, controls.by_weight(spec))
    masks = pruner.masks(sparsity, controls.selection(spec, seed), goal)
    masks = controls.applied(spec, masks, seed)
    kept = sum(int(mask.sum()) for mask in masks.values())
    if not kept:
        total = sum(mask.numel() for mask in masks.values())
        raise PaiBenchError(
            f"a sparsity of {sparsity} keeps none of the {total} prunable weights", "lower the sparsity"
        )
    if ties.are_many(pruner.tied_at_cut, kept) and pruner.warns_of_ties:
        warnings.warn(ties.warning(method, pruner.tied_at_cut, kept), ties.TiedScoresWarning, stacklevel=2)
    return masks


def _pruner(
    model: nn.Module,
    batches: Iterable[Batch],
    spec: MethodSpec,
    seed: int,
    dtype: str,
    loss: Loss | str,
    hyperparameters: Mapping[str, Any],
    only: Patterns,
    exclude: Patterns,
    warmup: int,
) -> Pruner:
    diagnosis.check_arguments(model, batches, spec.name, seed)
    scorer = registry.get(spec.name, {**dict(spec.hyperparameters), **hyperparameters})
    if getattr(scorer, "narrows", False):
        raise PaiBenchError(
            f"{spec.name} trains a narrower network and prunes nothing",
            "run it with pai-bench sweep, or build the network narrower",
        )
    if searches(scorer):
        raise PaiBenchError(
            f"{spec.name} searches its masks in a training", "run it with pai-bench sweep, or name another method"
        )
    if changes_masks(scorer):
        raise PaiBenchError(
            f"{spec.name} changes its masks during training", "run it with pai-bench sweep, or name another method"
        )
    model = unwrapped(model)
    if not (only or exclude):
        warn_of_left_out(model)
    # As in a sweep: with the user's own seed, draws could be the very numbers that made the weights.
    seeded = derive_seed(seed, "method")
    choice: dict[str, Any] = {"only": only, "exclude": exclude, "warmup": warmup}
    return Pruner(model, batches, scorer, name=spec.name, seed=seeded, dtype=dtype, loss=loss, **choice)


def _spec(method: Any) -> MethodSpec:
    """Parse a method with hyper-parameters and control; any other object is left to `check_arguments`."""
    return MethodSpec.parse(method) if isinstance(method, str) and ":" in method else MethodSpec(method)
