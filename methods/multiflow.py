"""MULTIFLOW: information flow within layers, with the layer densities of magnitude pruning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from pai_bench.scoring import Facts, Problem, check_outside_vmap, register


@register("multiflow", Facts("Farina et al. 2024", "activations", "inputs", "batches", "formula"))
@dataclass(frozen=True)
class MULTIFLOW:
    """|w_ij| mean_j(|w_ij| a_j) mean_i(|w_ij| a_j), a_j the norm of input j; as many weights a layer as by `magnitude`.

    Farina et al. 2024 (CVPR, arXiv 2404.05621), eq. 6 to 8, for one modality: a_j^2 is the sum of squares of input j
    over all samples and positions, divided by the number of samples; BatchNorm in eval mode. Extends the release,
    which has linear layers alone, to convolutions: inputs and outputs are channels, means run over kernels too. Weights
    whose inputs are not an argument of their layer (of hidden states, of attention's output projection) have all a_j
    equal to 1.
    """

    optional: ClassVar[bool] = True
    invariant_to: ClassVar[tuple[str, ...]] = ("permutation", "sample-order")

    def __call__(self, problem: Problem) -> dict[str, Tensor]:
        problem.model.eval()
        sums: dict[str, Tensor] = {}
        layers = {name: problem.model.get_submodule(name.rpartition(".")[0]) for name in problem.weights}
        handles = [layer.register_forward_pre_hook(adder(sums, name, layer)) for name, layer in layers.items()]
        samples = 0
        try:
            with torch.no_grad():
                for x, _ in problem.batches():
                    problem.forward(x)
                    samples += len(x)
        finally:
            for handle in handles:
                handle.remove()
        return {
            name: flow(w, layers[name], sums[name] / samples if name in sums else None)
            for name, w in problem.weights.items()
        }

    def quotas(self, problem: Problem) -> dict[str, int]:
        """The number of weights of each layer among the largest of the network."""
        sizes = [w.numel() for w in problem.weights.values()]
        # Weights of masks that are on the model already come last.
        values = [torch.where(problem.masks[name], w.abs(), -1).flatten() for name, w in problem.weights.items()]
        largest = torch.cat(values).sort(descending=True, stable=True).indices[: problem.kept]
        numbers = torch.arange(len(sizes), device="cpu")
        owner = numbers.repeat_interleave(torch.tensor(sizes, device="cpu")).to(largest.device)[largest]
        return dict(zip(problem.weights, torch.bincount(owner, minlength=len(sizes)).tolist(), strict=True))


ARGUMENTS = {"weight": 0, "in_proj_weight": 0, "q_proj_weight": 0, "k_proj_weight": 1, "v_proj_weight": 2}
ARGUMENTS |= {"weight_ih": 0, "weight_ih_l0": 0, "weight_ih_l0_reverse": 0}
"""The argument of the layer that a weight multiplies, by the attribute of the weight."""


def adder(sums: dict[str, Tensor], name: str, layer: nn.Module) -> Callable[..., None]:
    """A hook that adds the squares of a weight's inputs, summed over all but their features or channels."""
    place = ARGUMENTS.get(name.rpartition(".")[2])

    def add(_: nn.Module, arguments: tuple[Any, ...]) -> None:
        check_outside_vmap("multiflow", name.rpartition(".")[0])
        if place is not None and place < len(arguments):
            x = arguments[place]
            axis = 1 if isinstance(layer, _ConvNd) else x.ndim - 1
            total = x.square().sum([d for d in range(x.ndim) if d != axis])
            sums[name] = sums[name] + total if name in sums else total

    return add


def flow(weight: Tensor, layer: nn.Module, squares: Tensor | None) -> Tensor:
    """The scores of one layer, in the shape of its weight; `squares` by input, None for ones."""
    groups = getattr(layer, "groups", 1)
    turned = isinstance(layer, _ConvTransposeNd) or type(layer).__name__ == "Conv1D"  # [in, out]
    grouped = weight.abs().reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    grouped = grouped.transpose(1, 2) if turned else grouped  # [groups, outputs, inputs, kernel]
    signals = grouped if squares is None else grouped * squares.sqrt().view(groups, 1, -1, 1)
    score = grouped * signals.mean((2, 3), keepdim=True) * signals.mean((1, 3), keepdim=True)
    return (score.transpose(1, 2) if turned else score).reshape(weight.shape)
