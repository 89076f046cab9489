"""Removal of channels from a model: choice of the channels that stay, and slicing of its layers."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from pai_bench.models.resnet import ZeroPadShortcut
from pai_bench.pruning.shrinking.channels import Channels
from pai_bench.pruning.shrinking.structure import Mixing, PerChannel, Structure


class Choice:
    """The channels that stay: those on which the output depends, and carriers of constants."""

    def __init__(self, model: nn.Module, structure: Structure, *, fold: bool = True) -> None:
        """Compute the smallest sufficient set of channels; each group of layers keeps at least one.

        Without `fold`, channels of a constant value other than zero stay, because removing them changes the outputs.
        """
        self._fold = fold
        self._structure = structure
        self._root = structure.identities.all_roots()
        self._kept = torch.zeros(len(self._root), dtype=torch.bool)
        """By representative id; the entries of other ids are not used."""
        self._kept[self._root[structure.identities.pinned()]] = True
        self._require(model)
        self.carriers = {layer.name: self._carrier(model, layer) for layer in structure.mixing}
        for channels in _all(structure):
            if len(channels.ids) and not self.kept(channels).any():
                self._kept[self._root[channels.ids[0]]] = True

    def kept(self, channels: Channels) -> Tensor:
        """Return True for each channel that stays; bool [C]."""
        return self.kept_ids(channels.ids)

    def kept_ids(self, ids: Tensor) -> Tensor:
        """Return True for each id that stays; bool [C]."""
        return self._kept[self._root[ids]]

    def _require(self, model: nn.Module) -> None:
        """Add the varying inputs of every output that is required, until nothing is added."""
        used = {layer.name: _used(model, layer) for layer in self._structure.mixing}
        grown = True
        while grown:
            grown = False
            # From the output backwards, so that most requirements are found in the first pass.
            for layer in reversed(self._structure.mixing):
                read = layer.inputs.varying if self._fold else layer.inputs.constant != 0  # NaN is not 0 either
                needed = used[layer.name][self.kept(layer.outputs)].any(0) & read
                roots = self._root[layer.inputs.ids[needed]]
                grown |= not bool(self._kept[roots].all())
                self._kept[roots] = True

    def _carrier(self, model: nn.Module, layer: Mixing) -> int | None:
        """Return the input channel of a zero-padded convolution that represents the removed constants, if needed.

        A constant that zero padding surrounds is not the same at all positions, so it cannot become a bias. All such
        channels are multiples of one of them.
        """
        if not _spreads(model.get_submodule(layer.name)):
            return None
        constant = layer.inputs.constant
        used = _used(model, layer)[self.kept(layer.outputs)].any(0)
        removed = ~self.kept(layer.inputs) & ~layer.inputs.varying & (constant != 0) & used
        if not removed.any():
            return None
        present = self.kept(layer.inputs) & ~layer.inputs.varying & (constant != 0)
        # The largest constant, because the others are divided by it.
        candidates = torch.where(present if present.any() else removed, constant.abs(), -1.0)
        carrier = int(candidates.argmax())
        self._kept[self._root[layer.inputs.ids[carrier]]] = True
        return carrier


def _all(structure: Structure) -> Iterable[Channels]:
    for layer in structure.mixing:
        yield from (layer.inputs, layer.outputs)
    for other in structure.per_channel:
        yield other.channels


def _used(model: nn.Module, layer: Mixing) -> Tensor:
    """Return True where any weight from an input to an output channel is not zero; bool [O, I]."""
    weight = model.get_submodule(layer.name).weight
    assert isinstance(weight, Tensor)
    entries = weight.detach().flatten(2).abs().sum(2) if weight.dim() > 2 else weight.detach().abs()
    return entries.view(len(entries), len(layer.inputs.ids), layer.inputs.repeat).sum(2).cpu() != 0


def _spreads(module: nn.Module) -> bool:
    """Return True for a convolution with zero padding."""
    if not isinstance(module, _ConvNd):
        return False
    padding = module.padding if isinstance(module.padding, tuple) else (int(module.padding == "same"),)
    return module.padding_mode == "zeros" and any(padding)


def remove_channels(model: nn.Module, structure: Structure, choice: Choice) -> None:
    """Slice all layers of the model in place, and fold the removed constants into weights and biases."""
    with torch.no_grad():
        for layer in structure.mixing:
            _slice_mixing(model.get_submodule(layer.name), layer, choice)
        for other in structure.per_channel:
            _slice_per_channel(model, other, choice.kept(other.channels))
        for padding in structure.paddings:
            shortcut = model.get_submodule(padding.name)
            assert isinstance(shortcut, ZeroPadShortcut)
            shortcut.before = int(choice.kept_ids(padding.before).sum())
            shortcut.after = int(choice.kept_ids(padding.after).sum())


def _slice_mixing(module: nn.Module, layer: Mixing, choice: Choice) -> None:
    assert isinstance(module, (_ConvNd, nn.Linear))
    inputs, outputs = choice.kept(layer.inputs), choice.kept(layer.outputs)
    weight = module.weight.detach()
    removed = ~inputs & ~layer.inputs.varying
    constant = torch.where(removed, layer.inputs.constant, 0.0).to(weight.device)
    if (carrier := choice.carriers[layer.name]) is not None:
        share = (constant / layer.inputs.constant[carrier].item()).to(weight.dtype)
        added = (weight * share.view(-1, *(1,) * (weight.dim() - 2))).sum(1)
        weight = weight.clone()
        weight[:, carrier] += added
    elif bool(constant.any()):
        # In float64, because a whole layer's constants are added to one bias.
        sums = weight.double().flatten(2).sum(2) if weight.dim() > 2 else weight.double()
        offset = (sums * constant.repeat_interleave(layer.inputs.repeat)).sum(1).to(weight.dtype)
        module.bias = nn.Parameter(offset if module.bias is None else module.bias.detach() + offset)
    entries = inputs.repeat_interleave(layer.inputs.repeat).to(weight.device)
    module.weight = _same_kind(module.weight, weight[outputs.to(weight.device)][:, entries])
    if module.bias is not None:
        module.bias = _same_kind(module.bias, module.bias.detach()[outputs.to(weight.device)])
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    else:
        module.out_channels, module.in_channels = module.weight.shape[:2]


def _slice_per_channel(model: nn.Module, layer: PerChannel, kept: Tensor) -> None:
    owner, _, attribute = layer.name.rpartition(".")
    if layer.parameter_dim is not None:
        module = model.get_submodule(owner)
        parameter = getattr(module, attribute)
        index = kept.nonzero().flatten().to(parameter.device)
        setattr(module, attribute, _same_kind(parameter, parameter.detach().index_select(layer.parameter_dim, index)))
        return
    module = model.get_submodule(layer.name)
    for tensors in (module._parameters, module._buffers):
        for name, tensor in tensors.items():
            if tensor is not None and tensor.dim():
                sliced = tensor.detach()[kept.to(tensor.device)].clone()
                tensors[name] = _same_kind(tensor, sliced) if isinstance(tensor, nn.Parameter) else sliced  # type: ignore[assignment]
    count = int(kept.sum())
    if isinstance(module, _BatchNorm):
        module.num_features = count
    elif isinstance(module, _ConvNd):
        module.groups = module.in_channels = module.out_channels = count


def _same_kind(before: Tensor, values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.contiguous(), requires_grad=before.requires_grad)
