"""Smaller networks with equal outputs: removal of the channels that masks have disconnected."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.masking import apply_masks, masks_of, remove_masks, unwrapped
from pai_bench.pruning.model_copies import copy_to_score
from pai_bench.pruning.shrinking.analysis import analyse
from pai_bench.pruning.shrinking.slicing import Choice, remove_channels

__all__ = ["shrink"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3}
"""Allowed deviation of the outputs, relative to the largest output; beyond it the analysis has missed something."""


def shrink(model: nn.Module, masks: Mapping[str, Tensor] | None, example: Tensor) -> nn.Module:
    """Return a dense copy of a masked model with fewer channels, whose outputs in eval mode are equal.

    A channel is removed when no output depends on it: all weights that read it are pruned, or its value is constant
    because all weights that feed it are pruned (biases and BatchNorm offsets of such channels are folded into the next
    layer, or, before a zero-padded convolution, represented by one of them). Channels that meet in a residual sum are
    removed together. Layers without a rule (such as attention and grouped convolutions) keep their channels.

    masks: bool by parameter name, True = kept; None takes the masks that `apply_masks` has put on the model.
    example: a batch of inputs [B, ...]; its values serve only for the final comparison.

    The copy is a model of the same class with ordinary layers, in eval mode, without masks. In training mode its
    BatchNorm statistics, and with them its training, differ from the masked model's.

    Raises: PaiBenchError for a model that torch.fx cannot trace, for masks that do not fit, and when the outputs for
        the example differ.
    """
    model = unwrapped(model)
    given = masks_of(model) if masks is None else masks
    if not given:
        raise PaiBenchError("the model has no masks", "pass masks, or call pai_bench.apply_masks before")
    device = next(model.parameters()).device
    # On the CPU: the channels are followed through the network entry by entry.
    smaller, example = copy_to_score(model).cpu(), example.cpu()
    apply_masks(smaller, {name: mask.cpu() for name, mask in given.items()})
    remove_masks(smaller)
    smaller.eval()
    with torch.no_grad():
        expected = smaller(example)
        structure = analyse(smaller, example)
        remove_channels(smaller, structure, Choice(smaller, structure))
        try:
            found = smaller(example)
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            raise PaiBenchError(
                f"{type(model).__name__} cannot be shrunk: {line}",
                "its forward pass contains sizes as constants; take sizes from the tensors instead",
            ) from error
    # Relative to the largest output, because single outputs may be arbitrarily close to zero.
    deviation = float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not deviation <= TOLERANCE.get(expected.dtype, 1e-2):
        raise PaiBenchError(
            f"the outputs of the smaller {type(model).__name__} differ by {deviation:.1e} of the largest output",
            "please report the model: one of its operations is treated wrongly",
        )
    return smaller.to(device)
