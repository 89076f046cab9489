"""Cells of a ResNet trained as one network: stacked under torch.func.vmap, or side by side in groups of channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from pai_bench.models.resnet import ZeroPadShortcut
from pai_bench.recipes import Train
from pai_bench.training.eager_step import Change
from pai_bench.training.step import GraphStep, Step


class Joint(nn.Module):
    """A network that holds the tensors of `size` cells under the names that each cell has for its own."""

    join: Callable[[list[Tensor]], Tensor]
    """Joins the tensors of all cells into one, in which the entries of a cell are contiguous."""

    def __init__(self, cells: Sequence[nn.Module]) -> None:
        """Take copies; the cells stay as they are."""
        super().__init__()
        self.size = len(cells)
        self.network = copy.deepcopy(cells[0])

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors of other shapes in the place of the network's."""
        for name, value in tensors.items():
            owner, _, attribute = name.rpartition(".")
            module = self.network.get_submodule(owner)
            parameter = isinstance(getattr(module, attribute), nn.Parameter)
            setattr(module, attribute, nn.Parameter(value) if parameter else value)

    def cell(self, index: int) -> dict[str, Tensor]:
        """Parameters and buffers of a cell, flattened."""
        return {name: value.reshape(self.size, -1)[index] for name, value in self.network.state_dict().items()}


class Stacked(Joint):
    """The network as it is, mapped over the stacked parameters and running statistics."""

    join = staticmethod(torch.stack)

    def __init__(self, cells: Sequence[nn.Module]) -> None:
        super().__init__(cells)
        parameters, buffers = stack_module_state(list(cells))
        self.fill({**parameters, **buffers})

    def forward(self, x: Tensor) -> Tensor:
        """Images [cells, B, C, H, W] to logits [cells, B, classes]."""

        def one(parameters: dict[str, Tensor], buffers: dict[str, Tensor], images: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.network, (parameters, buffers), (images,))
            return logits

        logits: Tensor = vmap(one)(dict(self.network.named_parameters()), dict(self.network.named_buffers()), x)
        return logits


class Grouped(Joint):
    """The network with the channels of all cells: convolutions in groups, one BatchNorm, the classifier by bmm."""

    @staticmethod
    def join(tensors: list[Tensor]) -> Tensor:
        """Along the channels; a count of batches has none."""
        return torch.cat(tensors) if tensors[0].dim() else torch.stack(tensors)

    def __init__(self, cells: Sequence[nn.Module]) -> None:
        super().__init__(cells)
        states = [cell.state_dict() for cell in cells]
        self.fill({name: self.join([state[name] for state in states]) for name in states[0]})
        for name, module in list(self.network.named_modules()):
            if isinstance(module, nn.Conv2d):
                module.in_channels *= self.size
                module.out_channels *= self.size
                module.groups *= self.size
            elif isinstance(module, nn.BatchNorm2d):
                module.num_features *= self.size
            elif isinstance(module, nn.Linear):
                self.network.set_submodule(name, GroupedLinear(module, self.size))
            elif isinstance(module, ZeroPadShortcut):
                self.network.set_submodule(name, GroupedShortcut(module, self.size))

    def forward(self, x: Tensor) -> Tensor:
        """Images [cells, B, C, H, W] to logits [cells, B, classes]."""
        logits: Tensor = self.network(x.transpose(0, 1).flatten(1, 2))
        return logits.reshape(x.shape[1], self.size, -1).transpose(0, 1)


class GroupedLinear(nn.Module):
    """One linear layer per cell, computed as one batched product."""

    def __init__(self, joined: nn.Linear, size: int) -> None:
        super().__init__()
        self.weight, self.bias, self.size = joined.weight, joined.bias, size

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.reshape(len(x), self.size, -1).transpose(0, 1)
        weight = self.weight.view(self.size, -1, self.weight.shape[1])
        return torch.baddbmm(self.bias.view(self.size, 1, -1), inputs, weight.mT).transpose(0, 1).flatten(1)


class GroupedShortcut(nn.Module):
    """Add channels of zeros around the channels of each cell, which it sees as further images."""

    def __init__(self, shortcut: ZeroPadShortcut, size: int) -> None:
        super().__init__()
        self.shortcut, self.size = shortcut, size

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x.reshape(len(x) * self.size, -1, *x.shape[2:]))
        return out.reshape(len(x), -1, *out.shape[2:])


class JointStep(Step):
    """`Step` for a joint network: the same masks and one fused SGD, for batches [cells, B, ...]."""

    def _launch(self, x: Tensor, y: Tensor, change: Change | None = None) -> None:
        assert change is None, "a joint network has no masks that change"
        self.optimizer.zero_grad(set_to_none=True)
        # The sum of the cells' mean losses: each parameter has the gradient that its cell alone gives it.
        loss = F.cross_entropy(self._model(x).flatten(0, 1), y.flatten()) * len(y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._descend()
        self.total += loss.detach() * y.shape[1]


class JointGraphStep(JointStep, GraphStep):
    """The same, captured and checked as `GraphStep` does it."""


def joint_step(network: Joint, masks: Sequence[Mapping[str, Tensor]], settings: Train) -> Step:
    """Return the training step of a joint network, like `make_step` for a single cell."""
    joined = {f"network.{name}": network.join([mask[name] for mask in masks]) for name in masks[0]}
    captured = settings.cuda_graph and next(network.parameters()).device.type == "cuda"
    return (JointGraphStep if captured else JointStep)(network, joined, settings)
