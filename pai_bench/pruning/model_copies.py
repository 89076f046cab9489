"""Private copies of a model for scoring, and re-initialisation of their parameters."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pai_bench.core.randomness import derive_seed, torch_seeded
from pai_bench.errors import PaiBenchError
from pai_bench.models.initialisation import reset_parameters
from pai_bench.pruning.masking import remove_masks


def copy_to_score(model: nn.Module) -> nn.Module:
    """Return a copy of the model for scoring, without the hooks of `apply_masks`.

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


def cast_to_score(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Convert a model in place to `dtype`, complex buffers to the complex type of its precision, and return it.

    The gradients of its embeddings become dense, because sparse ones have no derivative.
    """
    for module in model.modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
            module.sparse = False

    def converted(tensor: Tensor) -> Tensor:
        if tensor.is_complex():  # Module.to would discard the imaginary part
            return tensor.to(dtype.to_complex())
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    model._apply(converted)
    return model


def reinitialiser(seed: int) -> Callable[[nn.Module], None]:
    """Return a function that re-initialises all modules by their own rules, with new random numbers at each call.

    The draws are made on the CPU in float64 and then copied, so that they depend neither on the model's device nor on
    its dtype.
    """
    draws = itertools.count()

    def reinitialise(model: nn.Module) -> None:
        # Modules draw on the device and in the dtype of their parameters, hence a copy on the CPU.
        twin = copy.deepcopy(model)
        # Tensors on the meta device have no values to copy.
        on_meta = any(parameter.is_meta for parameter in twin.parameters())
        twin = (twin.to_empty(device="cpu") if on_meta else twin.cpu()).double()
        for parameter in twin.parameters():
            # Initialisers draw in the order of the memory, which may be another one (channels last).
            parameter.data = parameter.data.contiguous()
        # A separate seed: the method's own draws must not use the same random numbers.
        with torch_seeded(derive_seed(seed, "redraw", next(draws))):
            reset_parameters(twin)
        with torch.no_grad():
            for ours, theirs in zip((model.parameters, model.buffers), (twin.parameters, twin.buffers), strict=True):
                for tensor, drawn in zip(ours(), theirs(), strict=True):
                    tensor.copy_(drawn)

    return reinitialise
