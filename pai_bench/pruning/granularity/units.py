"""Selection of units: sums of scores, the order in which units are kept, and the number of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pai_bench.errors import PaiBenchError
from pai_bench.pruning.granularity.channels import Channels, Ints
from pai_bench.pruning.selection import Select, keep_exactly, keys, to_masks

Floats = NDArray[np.float64]
N, M = 2, 4
"""The pattern 2:4: at most two of four consecutive inputs."""


@dataclass(frozen=True, eq=False)
class _Split:
    """Weights in units; all arrays are indexed by unit except `numbers`."""

    numbers: dict[str, Ints]
    """Unit of each weight [O, I, K], by name; -1 for a weight that cannot be kept."""
    order: Floats
    """Key by which units are kept, the highest first, ties by number."""
    sizes: Ints
    """Number of weights."""
    families: Ints
    """Number of the layer, or of the layers that share units."""


@dataclass(frozen=True, eq=False)
class Units:
    """The rule of a granularity for one network.

    "kernel": one filter of one input channel (a single weight of a linear layer). "channel": all weights of an output
    channel. "2:4": single weights, at most two of four consecutive inputs of an output (and kernel position).
    "constant-fan-in": one more weight for each output of a layer.
    """

    granularity: str
    flipped: frozenset[str]
    """Weights with the inputs in their first dimension."""
    channels: Channels | None = None

    def masks(
        self,
        scores: Mapping[str, Tensor],
        alive: Mapping[str, Tensor],
        density: float,
        kept: int,
        *,
        quotas: Mapping[str, int] | None = None,
        select: Select = keep_exactly,
    ) -> dict[str, Tensor]:
        """Return the masks of one round, bool by name: at most `kept` of the weights `alive`, by whole units.

        Units are ranked by the sum of their scores, and kept until the next one would exceed `kept`. Each layer keeps
        its best unit (not with "2:4"), and outputs of the network keep all of their weights, even if these are more
        than `kept`. With `quotas`, and for a constant fan-in, units are kept in the order that meets the quota of every
        layer to within one unit; a constant fan-in takes the numbers of weights that `select` gives to the layers.
        """
        # Sums over units are taken in float64: in float32 their rounding errors could decide between units.
        score = {name: self._oriented(name, scores[name].detach().double()) for name in alive}
        live = {name: self._oriented(name, mask) for name, mask in alive.items()}
        if self.granularity == "constant-fan-in" and quotas is None:
            most = min(kept, sum(int(mask.sum()) for mask in alive.values()))
            single = to_masks(scores, alive, density, most, select=select)
            quotas = {name: int(mask.sum()) for name, mask in single.items()}
        split = self._split(score, live, select)
        order = split.order if quotas is None else _by_quota(split, self._family_quotas(split, quotas))
        chosen = self._fixed(split, order)
        # Stable, so that equal units are kept in the order of their position on every machine.
        rest = np.argsort(-order, kind="stable")
        rest = rest[~chosen[rest] & (split.sizes[rest] > 0)]
        totals = split.sizes[chosen].sum() + np.cumsum(split.sizes[rest])
        chosen[rest[: np.searchsorted(totals, kept, side="right")]] = True
        chosen = np.append(chosen, False)  # at -1
        return {name: self._restored(name, chosen[split.numbers[name]], mask) for name, mask in alive.items()}

    def check(self, masks: Mapping[str, Tensor], wanted: int) -> None:
        """Check that the number of kept weights is the wanted one to within one unit.

        Raises: PaiBenchError if they differ by the size of the largest unit or more, or if the masks keep more than
        twice the wanted number, as a single unit of a narrow network may do.
        """
        kept, size = (sum(int(count) for count in counts) for counts in zip(*map(_counts, masks.values()), strict=True))
        full = {name: torch.ones_like(mask) for name, mask in masks.items()}
        if abs(kept - wanted) < self.extent(full)[0] and kept <= 2 * wanted:
            return
        if kept < wanted:
            raise PaiBenchError(
                f"masks of granularity {self.granularity} keep at most {kept} of the {size} prunable weights, fewer"
                f" than {wanted}",
                "ask for a higher sparsity, or another granularity",
            )
        raise PaiBenchError(
            f"one {self.granularity} unit in each layer and all outputs of the network have {kept} of the {size}"
            f" prunable weights, more than {wanted}",
            f"ask for a sparsity up to {_below(kept / size)}, or another granularity"
            + (", or count only weights on paths (effective)" if self.granularity == "channel" else ""),
        )

    def extent(self, alive: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the numbers of weights of the largest unit, and of all units together."""
        live = {name: self._oriented(name, mask) for name, mask in alive.items()}
        split = self._split({name: part.astype(np.float64) for name, part in live.items()}, live, keep_exactly)
        return int(split.sizes.max(initial=0)), int(split.sizes.sum())

    def _oriented(self, name: str, tensor: Tensor) -> NDArray[Any]:
        """Return a weight's tensor as an array [outputs, inputs, kernel positions]."""
        array = tensor.cpu().numpy()
        array = array.swapaxes(0, 1) if name in self.flipped else array
        return np.ascontiguousarray(array).reshape(*array.shape[:2], -1)

    def _restored(self, name: str, array: NDArray[np.bool_], like: Tensor) -> Tensor:
        first, second, *rest = like.shape
        if name in self.flipped:
            array = array.reshape(second, first, *rest).swapaxes(0, 1)
        return torch.from_numpy(np.ascontiguousarray(array).reshape(like.shape)).to(like.device)

    def _split(self, score: Mapping[str, Floats], live: Mapping[str, NDArray[np.bool_]], select: Select) -> _Split:
        if self.granularity in ("kernel", "channel"):
            return self._summed(score, live, select)
        flat = torch.from_numpy(np.concatenate([part.ravel() for part in score.values()]))
        alive = torch.from_numpy(np.concatenate([part.ravel() for part in live.values()]))
        key = keys(select, flat, alive).numpy()
        ends = np.cumsum([part.size for part in score.values()])
        ranked = {
            name: np.where(live[name], part.reshape(live[name].shape), -np.inf)
            for name, part in zip(score, np.split(key, ends[:-1]), strict=True)
        }
        if self.granularity == "2:4":
            return _two_of_four(ranked, live, key)
        return _constant_fan_in(ranked, live)

    def _summed(self, score: Mapping[str, Floats], live: Mapping[str, NDArray[np.bool_]], select: Select) -> _Split:
        numbers, families, first = {}, [], 0
        for layer, (name, part) in enumerate(live.items()):
            outputs, inputs, _ = part.shape
            if self.channels is not None:
                unit = self.channels.rows[name][:, None, None]
            else:
                unit = first + np.arange(outputs * inputs).reshape(outputs, inputs, 1)
                first += outputs * inputs
                families.append(np.full(outputs * inputs, layer))
            numbers[name] = np.where(part, unit, -1)
        count = first if self.channels is None else len(self.channels.fixed)
        family = np.concatenate(families) if self.channels is None else self.channels.families
        every = np.concatenate([numbers[name].ravel() for name in live])
        values = np.concatenate([score[name].ravel() for name in live])
        sizes = np.bincount(every[every >= 0], minlength=count)
        sums = torch.from_numpy(np.bincount(every[every >= 0], weights=values[every >= 0], minlength=count))
        return _Split(numbers, keys(select, sums, torch.from_numpy(sizes > 0)).numpy(), sizes, family)

    def _family_quotas(self, split: _Split, quotas: Mapping[str, int]) -> Floats:
        """Return the sum of the quotas of each family's layers."""
        sums = np.zeros(int(split.families.max()) + 1)
        for layer, (name, quota) in enumerate(quotas.items()):
            sums[layer if self.channels is None else split.families[self.channels.rows[name][0]]] += quota
        return sums

    def _fixed(self, split: _Split, order: Floats) -> NDArray[np.bool_]:
        """Return True for units that stay: outputs of the network, and the best unit of each other layer."""
        chosen = np.zeros(len(order), dtype=bool) if self.channels is None else self.channels.fixed & (split.sizes > 0)
        if self.granularity == "2:4":
            return chosen
        for number in split.numbers.values():
            units = np.unique(number[number >= 0])
            if len(units) and not chosen[units].any():
                chosen[units[np.argmax(order[units])]] = True
        return chosen


def _below(density: float) -> str:
    """Return the sparsity of a density with two digits of the density, rounded down so that it is possible."""
    places = 1 - math.floor(math.log10(density))
    return f"{math.floor((1 - density) * 10**places) / 10**places:.{places}f}"


def _counts(mask: Tensor) -> tuple[int, int]:
    return int(mask.sum()), mask.numel()


def _two_of_four(ranked: Mapping[str, Floats], live: Mapping[str, NDArray[np.bool_]], key: Floats) -> _Split:
    numbers, first = {}, 0
    for name, part in ranked.items():
        outputs, inputs, positions = part.shape
        # Padding of minus infinity ranks last, so that a group which is not complete keeps its real inputs.
        padded = np.pad(part, ((0, 0), (0, -inputs % M), (0, 0)), constant_values=-np.inf)
        fours = padded.reshape(outputs, -1, M, positions)
        # The second argsort inverts the first one, which gives the rank of each weight among the four.
        place = np.argsort(np.argsort(-fours, axis=2, kind="stable"), axis=2)
        allowed = (place < N).reshape(outputs, -1, positions)[:, :inputs] & live[name]
        numbers[name] = np.where(allowed, first + np.arange(part.size).reshape(part.shape), -1)
        first += part.size
    every = np.concatenate([number.ravel() for number in numbers.values()])
    sizes = (every >= 0).astype(np.int64)
    return _Split(numbers, key, sizes, _layers([part.size for part in ranked.values()]))


def _constant_fan_in(ranked: Mapping[str, Floats], live: Mapping[str, NDArray[np.bool_]]) -> _Split:
    """Return units of the best, second best, … weight of every output; outputs without any weight stay empty."""
    numbers, sizes, first = {}, [], 0
    for name, part in ranked.items():
        rows = part.reshape(len(part), -1)
        counts = live[name].reshape(rows.shape).sum(1)
        # No more than the sparsest output has left, because all outputs must keep equally many.
        width = int(counts[counts > 0].min()) if counts.any() else 0
        place = np.argsort(np.argsort(-rows, axis=1, kind="stable"), axis=1)
        allowed = (place < width) & (counts > 0)[:, None]
        numbers[name] = np.where(allowed, first + place, -1).reshape(part.shape)
        sizes.append(np.full(width, int((counts > 0).sum())))
        first += width
    return _Split(numbers, -np.arange(float(first)), np.concatenate(sizes), _layers([len(size) for size in sizes]))


def _layers(counts: list[int]) -> Ints:
    return np.repeat(np.arange(len(counts)), counts)


def _by_quota(split: _Split, quotas: Floats) -> Floats:
    """Return keys by which units are kept so that all families reach the same part of their quotas together.

    The unit with which a family exceeds its quota comes after those of all families that do not, the smallest excess
    in units first, and before any second one: counts differ from the quotas by less than one unit.
    """
    order = np.lexsort((np.arange(len(split.order)), -split.order, split.families))
    sizes, families = split.sizes[order], split.families[order]
    of_families = np.bincount(families, weights=sizes, minlength=len(quotas))
    totals = np.cumsum(sizes) - (np.cumsum(of_families) - of_families)[families]
    quota = quotas[families]
    excess = 1 + (totals - quota) / np.maximum(sizes, 1)
    part = np.where(totals <= quota, totals / np.maximum(quota, 1), excess)
    result = np.empty(len(order))
    result[order] = -np.where(quota > 0, part, np.inf)
    return result
