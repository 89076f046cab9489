"""Causes of errors that torch raises while a model is scored, and checks of the arguments of the Python API."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench.core.outputs import logits
from pai_bench.errors import PaiBenchError
from pai_bench.scoring.losses import IGNORED
from pai_bench.scoring.paths.layouts import layout_of, overlap, storage_of
from pai_bench.scoring.weights import check_initialised

RAISED = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""Exceptions of models and of torch that the caller's arguments can cause."""


_OTHER_TYPE = ("expected scalar type", "should be the same", "same dtype", "same data type")
"""Words of torch's errors for tensors of different types."""


def check_arguments(model: Any, batches: Any, method: Any, seed: Any) -> None:
    """Check the types of the arguments of `score` and `prune`.

    Raises: PaiBenchError for an argument of a wrong type, or a model without values.
    """
    if not isinstance(model, nn.Module):
        if isinstance(batches, nn.Module):
            raise PaiBenchError(
                "model and batches are the wrong way round", "pass the model first: prune(model, batches)"
            )
        raise PaiBenchError(f"the model is an object of type {type(model).__name__}", "pass a torch.nn.Module")
    if not isinstance(batches, Iterable) and not hasattr(batches, "__getitem__"):
        raise PaiBenchError(
            f"the batches are an object of type {type(batches).__name__}, which cannot be iterated over",
            "pass a list of (x, y), or a DataLoader",
        )
    if isinstance(batches, (Tensor, str, bytes, dict)):
        raise PaiBenchError(
            f"the batches are one {type(batches).__name__}",
            "pass a list of pairs of tensors: [(x, y)], or a DataLoader",
        )
    if not isinstance(method, str):
        raise PaiBenchError(
            f"the method is an object of type {type(method).__name__}",
            "pass its name, for instance method='snip'; pai_bench.list_methods() has all names",
        )
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise PaiBenchError(f"seed {seed!r} is not a whole number", "pass for instance seed=0")
    check_values(model)


def check_values(model: nn.Module) -> None:
    """Check that the parameters and buffers of a model have values, and parameters memory of their own.

    Raises: PaiBenchError for lazy tensors, tensors on the meta device, and sparse or overlapping parameters.
    """
    check_initialised(model)
    check_memory(dict(model.named_parameters()))
    for name, parameter in model.named_parameters():
        if parameter.layout is not torch.strided:
            raise PaiBenchError(
                f"{name} is stored as a sparse tensor ({str(parameter.layout).removeprefix('torch.')})",
                "pass the model with dense weights (to_dense()); masks are applied to dense weights with apply_masks",
            )
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_meta:
            raise PaiBenchError(
                f"{name} is on the meta device and has no values",
                "build the model on a real device, or call model.to_empty(device=…) and draw or load its weights",
            )


def check_memory(parameters: Mapping[str, nn.Parameter]) -> None:
    """Check that no two elements of the parameters share memory, so that a mask changes pruned weights alone.

    Raises: PaiBenchError for an expanded parameter, and for two parameters of which one is a view of the other.
    """
    owners: dict[int, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in parameters.items():
        if parameter.is_meta or parameter.layout is not torch.strided:
            continue
        if any(step == 0 and side > 1 for side, step in zip(parameter.shape, parameter.stride(), strict=True)):
            raise PaiBenchError(
                f"{name} is an expanded tensor, whose elements share memory", f"make it a copy: {name}.clone()"
            )
        others = owners.setdefault(storage_of(parameter), [])
        for other, theirs in others:
            if overlap(layout_of(parameter), layout_of(theirs)):
                raise PaiBenchError(
                    f"{name} and {other} are two parameters in the same memory",
                    "tie them by assigning the parameter itself (a.weight = b.weight), or give each its own values",
                )
        others.append((name, parameter))


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error of torch means that memory is exhausted, on a GPU or on the host."""
    text = str(error).lower()
    # On a CPU, exhausted memory is a plain RuntimeError with a text that depends on the system.
    return isinstance(error, torch.OutOfMemoryError) or any(
        words in text for words in ("out of memory", "not enough memory", "can't allocate memory")
    )


def cause(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: Callable[[Tensor, Tensor], Tensor] | None = None
) -> PaiBenchError | None:
    """Return the reason why a model cannot be scored on these batches, or None if forward pass and targets are valid.

    Targets are checked by calling `loss`; without one, as class indices or probabilities of cross entropy.

    Calls the model in train mode on each batch, without gradients; the caller has no further use for the model.
    """
    # BatchNorm refuses a single value per channel in train mode only.
    model.train()
    for number, (x, y) in enumerate(batches, start=1):
        try:
            with torch.no_grad():
                outputs = logits(model(x.clone()))
        except PaiBenchError as error:
            return error
        except RAISED as error:
            return None if is_out_of_memory(error) else _of_inputs(error, number, x, model)
        problem = _of_targets(outputs, y) if loss is None else _of_loss(loss, outputs, y)
        if problem is not None:
            return problem
    return None


def line(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0] or 'no message'}"


def no_gradient(error: BaseException) -> PaiBenchError | None:
    """Return the error for outputs that a model has cut off from its weights; None for another error of torch."""
    if not any(words in str(error) for words in ("does not require grad", "Inference tensors cannot be saved")):
        return None
    return PaiBenchError(
        "the outputs of the model have no gradient",
        "remove detach(), torch.no_grad() and torch.inference_mode() from its forward pass",
    )


def layer_of(error: BaseException, model: nn.Module) -> str | None:
    """Return the innermost layer whose forward pass raised an error; None where no layer did."""
    names = {id(module): name for name, module in model.named_modules()}
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = frame.f_locals.get("self")
        if names.get(id(module)):
            found = f"layer {names[id(module)]} ({type(module).__name__})"
    return found


def _is_inside_transform(error: BaseException) -> bool:
    """Return True for an error inside a transform of torch.func (vmap, grad, …)."""
    return any("_functorch" in frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))


def _of_inputs(error: Exception, number: int, x: Tensor, model: nn.Module) -> PaiBenchError:
    if _is_inside_transform(error):
        where = layer_of(error, model) or f"{type(model).__name__}.forward"
        return PaiBenchError(
            f"{where} cannot be computed inside a transform of torch.func (vmap, grad, …): {line(error)}",
            "compute it on the whole batch, outside of the transform",
        )
    if "more than 1 value per channel" in str(error):
        return PaiBenchError(
            f"scoring batch {number} has {len(x)} image, and batch norm in train mode needs two values a channel",
            "use batches of two or more images: DataLoader(…, drop_last=True), or scoring.batch_size in a recipe",
        )
    kind = str(x.dtype).removeprefix("torch.")
    if x.dtype == torch.float64 and any(words in str(error) for words in _OTHER_TYPE):
        return PaiBenchError(
            f"{layer_of(error, model) or 'the model'} computes in a type of its own, not in {kind}: {line(error)}",
            'score in the type of the model: dtype="float32", or scoring.dtype in a recipe',
        )
    remedy = "pass inputs of the shape that the model is built for: images [B, channels, height, width]"
    if not x.is_floating_point():
        remedy = "convert images to floats: x.float() (integers are for models of tokens)"
    return PaiBenchError(f"the model cannot be called on inputs {list(x.shape)} of {kind}: {line(error)}", remedy)


def _of_loss(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, y: Tensor) -> PaiBenchError | None:
    """Return the error of a loss other than cross entropy for these outputs and targets, or None if there is none."""
    try:
        with torch.no_grad():
            loss(outputs, y)
    except PaiBenchError as error:
        return error
    except RAISED as error:
        if is_out_of_memory(error):
            return None
        return PaiBenchError(
            f"the loss cannot be computed for outputs {list(outputs.shape)} and targets {list(y.shape)} of"
            f" {str(y.dtype)[6:]}: {line(error)}",
            "pass targets that the loss takes, or another loss",
        )
    return None


def _of_targets(outputs: Tensor, y: Tensor) -> PaiBenchError | None:
    """Return the error for logits [B, classes, …] that do not fit the targets of cross entropy; None if they fit."""
    shapes = f"the model returns logits {list(outputs.shape)} for targets {list(y.shape)} of {str(y.dtype)[6:]}"
    if outputs.ndim > 2 and y.ndim == 1 and outputs[0, 0].numel() == 1:
        return PaiBenchError(shapes, "return logits [B, classes]: add torch.nn.Flatten() at the end of the model")
    if y.shape == outputs.shape:
        if y.is_floating_point():
            return None
        return PaiBenchError(
            f"the targets {list(y.shape)} of {str(y.dtype)[6:]} are one vector a sample (one-hot?)",
            "pass class indices [B], as y.argmax(1) gives them, or probabilities [B, classes] of floats",
        )
    expected = torch.Size([outputs.shape[0], *outputs.shape[2:]]) if outputs.ndim > 1 else None
    if y.shape != expected:
        return PaiBenchError(shapes, "cross entropy takes logits [B, classes] and class indices [B]")
    if y.is_floating_point():
        return PaiBenchError(
            f"the targets [B] are numbers of type {str(y.dtype)[6:]}, not class indices", "pass class indices: y.long()"
        )
    counted = y[y != IGNORED]
    classes = outputs.shape[1]
    if not classes:
        return PaiBenchError(shapes, "build the model with at least one output for each class")
    if counted.numel() and not 0 <= int(counted.min()) <= int(counted.max()) < classes:
        return labels_error(int(counted.min()), int(counted.max()), classes)
    return None


def labels_error(least: int, most: int, classes: int | None) -> PaiBenchError:
    """Return the error for class indices outside 0 to classes - 1."""
    among = "" if classes is None else f" for {classes} logits"
    last = "classes - 1" if classes is None else classes - 1
    return PaiBenchError(
        f"the class indices run from {least} to {most}{among}",
        f"class indices are 0 to {last}: subtract 1 from labels that begin at 1; {IGNORED} marks a sample to ignore",
    )
