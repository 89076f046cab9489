"""Losses by name, and refusals of outputs and targets that a loss cannot score."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError, unknown

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [B, …], targets [B, …]) -> scalar, the mean over the samples of a batch."""

IGNORED = -100
"""Class index of torch's cross entropy for a target that does not count."""

ROUNDING = 100
"""Units of rounding: a loss that changes by less of itself over the range of the outputs is constant."""

_REMEDY = (
    'pass loss="binary-cross-entropy" or a callable, for instance loss=torch.nn.functional.mse_loss'
    ' (in a recipe: train.loss = "binary-cross-entropy")'
)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Compute the mean cross entropy of logits [B, classes, …] and class indices [B, …] or class probabilities.

    Logits [B·T, classes] may have class indices [B, T].

    Raises: PaiBenchError where it would be constant, or a number without a meaning; torch's errors for other shapes.
    """
    shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)} of {str(targets.dtype)[6:]}"
    if outputs.ndim < 2:
        raise PaiBenchError(f"cross entropy needs logits [B, classes], not {shapes}", _REMEDY)
    if outputs.ndim > 2 and outputs.shape[1] == 1 and targets.ndim == 1:
        raise PaiBenchError(f"cross entropy needs logits [B, classes], not {shapes}", "return logits [B, classes]")
    if outputs.shape[1] == 1:
        raise PaiBenchError(f"the cross entropy of one logit is constant: {shapes}", _REMEDY)
    if outputs.ndim == 2 and targets.ndim == 2 and len(outputs) == targets.numel():
        targets = targets.flatten()
    return F.cross_entropy(outputs, targets)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean binary cross entropy of one logit a sample, [B] or [B, 1], and targets [B] or [B, 1] in [0, 1].

    Raises: PaiBenchError for other shapes.
    """
    if outputs.shape[1:].numel() != 1 or targets.shape[1:].numel() != 1 or len(outputs) != len(targets):
        raise PaiBenchError(
            f"binary cross entropy needs one logit per sample, [B] or [B, 1], not outputs {list(outputs.shape)}"
            f" and targets {list(targets.shape)}",
            'return one logit, or use the loss "cross-entropy" for two or more',
        )
    outputs = outputs.flatten()
    return F.binary_cross_entropy_with_logits(outputs, targets.flatten().to(outputs.dtype))


_LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "binary-cross-entropy": binary_cross_entropy}


def by_name(name: str) -> Loss:
    """Return the loss of a recipe's train.loss.

    Raises: PaiBenchError for an unknown name.
    """
    if name not in _LOSSES:
        raise unknown("loss", name, _LOSSES)
    return _LOSSES[name]


def n_outputs(name: str, classes: int, dataset: str) -> int:
    """Return the number of logits a sample that the loss `name` needs for a data set of so many classes.

    Raises: PaiBenchError where the loss does not apply to them.
    """
    if name != "binary-cross-entropy":
        return classes
    if classes != 2:
        raise PaiBenchError(
            f"train.loss = {name!r} is for data of 2 classes, and {dataset} has {classes}",
            'use train.loss = "cross-entropy", or data of two classes',
        )
    return 1


def predictions(name: str, logits: Tensor) -> Tensor:
    """Return class indices [B] from the logits that belong to the loss `name`."""
    return (logits.flatten() > 0).long() if name == "binary-cross-entropy" else logits.argmax(1)


def to_score(loss: Loss | str, like: Tensor) -> Loss:
    """Return the loss that a caller names or gives, a module as a copy of the dtype and device of `like`, with checks.

    What it returns raises PaiBenchError for a loss that is not a mean over samples, or that is constant.
    """
    if isinstance(loss, str):
        return _checked_by_name(loss)
    if not callable(loss):
        raise PaiBenchError(
            f"the loss is an object of type {type(loss).__name__}",
            "pass a function (outputs, targets) -> scalar, the mean over the samples of a batch",
        )
    reduction = getattr(loss, "reduction", "mean")
    if reduction not in ("mean", "batchmean"):
        raise PaiBenchError(f"the loss has reduction={reduction!r}", "pass one with reduction='mean'")
    # A copy, because `to` would change the dtype of the class weights of the caller's module.
    given = copy.deepcopy(loss).to(like.device, like.dtype) if isinstance(loss, nn.Module) else loss

    def checked(outputs: Tensor, targets: Tensor) -> Tensor:
        value = given(outputs, targets.to(outputs.dtype) if targets.is_floating_point() else targets)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
            kind = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            raise PaiBenchError(f"the loss returned {kind}", "return the mean over the samples, a tensor of one number")
        # A constant loss has gradients that are zero or rounding errors, and their ranking would be noise.
        if outputs.requires_grad and not _tells(value, outputs):
            raise PaiBenchError(
                f"the loss of outputs {list(outputs.shape)} does not change with the outputs", "pass another loss"
            )
        return value.reshape(())

    return checked


def _tells(value: Tensor, outputs: Tensor) -> bool:
    """Return True if a loss depends on the outputs beyond rounding errors."""
    if not value.requires_grad:
        return False
    (slope,) = torch.autograd.grad(value, outputs, retain_graph=True, materialize_grads=True)
    # At least 1, because all logits of a network with a zero-initialised last layer are zero.
    reach = slope.abs().max() * outputs.detach().abs().max().clamp_min(1)
    return bool(reach > ROUNDING * torch.finfo(value.dtype).eps * value.detach().abs())


def _checked_by_name(name: str) -> Loss:
    plain = by_name(name)

    def checked(outputs: Tensor, targets: Tensor) -> Tensor:
        value = plain(outputs, targets)
        if targets.is_meta:  # without values to look at
            return value
        if name == "binary-cross-entropy":
            if bool(((targets < 0) | (targets > 1)).any()):
                raise PaiBenchError("targets of binary cross entropy are not in [0, 1]", "pass labels of 0 and 1")
        elif not targets.is_floating_point() and bool((targets == IGNORED).all()):
            raise PaiBenchError(
                f"all labels of a scoring batch are ignored ({IGNORED})",
                "leave that batch out; its loss is not a number",
            )
        return value

    return checked
