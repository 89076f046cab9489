"""Training with RigL, SET and GMP agrees with released code: masks after every update, and the weights at the end.

The files state repository, commit and settings in `meta`. Rules of the releases that differ from ours (rounding, the
end of a schedule, coin tosses) are written here, so that all else is compared: which weights are dropped and grow, the
order of the updates of weights and masks, and the momentum of weights that change.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pai_bench import recipes
from pai_bench.scoring import Length, MaskChange, Moment, cosine, registry
from pai_bench.training.eager_step import Step
from pai_bench.training.mask_updates import Changing, MaskUpdates, changed

from . import nets
from .test_golden import CASES

RigL: Any = registry.method_class("rigl")
GMP: Any = registry.method_class("gmp")
Masks = Mapping[str, Tensor]


class Case:
    """A golden file, and a training of its network."""

    def __init__(self, name: str, net: str, dtype: torch.dtype = torch.float64) -> None:
        with np.load(CASES / f"{name}.npz", allow_pickle=False) as file:
            self.arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
            self.meta = json.loads(str(file["meta"]))
        self.dtype = dtype
        self.model = nets.build(net)
        nets.load(self.model, self.under("param/") | self.under("buffer/"))
        self.model.to(dtype).train()

    def under(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.arrays.items() if key.startswith(prefix)}

    def masks(self, number: int) -> dict[str, Tensor]:
        return {f"{name}.weight": mask.bool().clone() for name, mask in self.under(f"mask_{number}/").items()}

    def train(
        self,
        method: Any,
        steps: int,
        after: Callable[[int], None] = lambda step: None,
        kind: type[MaskUpdates] = MaskUpdates,
    ) -> None:
        """Train for `steps` steps from mask 0, with mask updates; `after` is called after each step."""
        masks, optimizer = self.masks(0), self.meta["hyper"]["optimizer"]
        settings = dataclasses.replace(
            recipes.load("quick", "digits", "conv8").train,
            lr=optimizer["lr"],
            momentum=optimizer["momentum"],
            weight_decay=optimizer.get("weight_decay", 0.0),
            nesterov=optimizer.get("nesterov", False),
        )
        one_step = Step(self.model, masks, settings, changing=True)
        kept, size = (sum(int(count) for count in counts) for counts in zip(*_counts(masks), strict=True))
        changing = Changing(method, "golden", kept, size)
        updates = kind(changing, self.model, masks, one_step, [steps], steps, 0)
        for step in range(steps):
            x, y = self.arrays[f"x{step % 8}"].to(self.dtype), self.arrays[f"y{step % 8}"]
            before = len(updates.past)
            one_step(x, y, settings.lr, change=updates.at(0, step))
            after(step)
            if len(updates.past) > before:
                self.compare(masks, len(updates.past))
        assert one_step.masked.intact()
        self.final = masks

    def compare(self, masks: Masks, number: int) -> None:
        for name, mask in self.masks(number).items():
            assert torch.equal(mask, masks[name]), (number, name)

    def compare_weights(self, prefix: str, tolerance: float) -> None:
        ours = {name: p.detach() for name, p in self.model.named_parameters()}
        for name, theirs in self.under(prefix).items():
            theirs = torch.where(self.final[name], theirs, 0) if name in self.final else theirs
            assert (ours[name] - theirs).abs().max() <= tolerance * theirs.abs().max(), name


def _counts(masks: Masks) -> list[tuple[int, int]]:
    return [(int(mask.sum()), mask.numel()) for mask in masks.values()]


def test_rigl_torch_with_momentum_and_dense_linear_layers() -> None:
    case = Case("rigl_torch_tinyres_S0.9_linear-dense_m0.9", "tinyres")
    case.train(RigL(every=5, fraction=0.3, stop=20 / 22), 22)
    case.compare_weights("final_param64/", 1e-9)


def test_rigl_torch_with_gradients_accumulated_over_three_steps() -> None:
    case = Case("rigl_torch_tinyres_S0.8_linear-sparse_m0_acc3", "tinyres")
    sums = {name: torch.zeros_like(w) for name, w in case.model.named_parameters()}

    class Accumulated(RigL):  # type: ignore[misc]
        def update_steps(self, length: Length) -> Sequence[int]:
            return range(4, length.steps, 4)

        def update_masks(self, moment: Moment) -> MaskChange:
            mean = {name: sums[name] / 3 for name in moment.masks}
            # The release's schedule ends at step 30, after the recorded steps.
            late = dataclasses.replace(moment, gradients=mean, length=Length(30, 30))
            change: MaskChange = RigL(every=4, stop=1.0).update_masks(late)
            return change

    def adder(total: Tensor) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            total.add_(gradient)

        return add

    for name, weight in case.model.named_parameters():
        weight.register_hook(adder(sums[name]))

    def after(step: int) -> None:
        if step % 4 == 0:  # of four steps the last three count
            for total in sums.values():
                total.zero_()

    case.train(Accumulated(every=4), 18, after)
    case.compare_weights("final_param64/", 1e-9)


def test_the_authors_optimizer_in_tensorflow() -> None:
    case = Case("rigl_tf_mlp_rigl_S0.8", "mlp", torch.float32)

    class Authors(RigL):  # type: ignore[misc]
        def update_steps(self, length: Length) -> Sequence[int]:
            return [number + 1 for number, call in enumerate(case.meta["calls"]) if call["mask_update"]]

        def update_masks(self, moment: Moment) -> MaskChange:
            step = case.meta["calls"][moment.step - 1]["global_step_before"]  # without calls that update masks
            return MaskChange(
                {name: w.abs() for name, w in moment.weights.items()},
                {name: n - int(np.float32(n) * cosine(0.3, step, 9)) for name, n in moment.living().items()},
                {name: g.abs() for name, g in moment.gradients.items()},
            )

    case.train(Authors(), 16)
    case.compare_weights("final_param32/", 1e-5)


class ITOP(RigL):  # type: ignore[misc]
    """ITOP's release: weights are trained before each update, the number of dropped weights is rounded up."""

    replaces_step = False

    def update_steps(self, length: Length) -> Sequence[int]:
        return range(4, length.steps + 1, 4)

    def update_masks(self, moment: Moment) -> MaskChange:
        rate = 0.005 + cosine(self.fraction - 0.005, moment.step, 20)
        return MaskChange(
            {name: w.abs() for name, w in moment.weights.items()},
            {name: n - math.ceil(rate * n) for name, n in moment.living().items()},
            {name: g.abs() for name, g in moment.gradients.items()},
        )


def test_rigl_of_itop_after_the_update_of_the_weights() -> None:
    case = Case("itop_tinyres_rigl_d0.2_r0.3", "tinyres")
    case.train(ITOP(fraction=0.3), 16)
    case.compare_weights("final_param64/", 1e-9)


def test_set_of_itop_drops_the_same_weights_and_loses_some_that_pai_bench_keeps() -> None:
    case = Case("itop_tinyres_set_d0.2_r0.5", "tinyres")
    numbers: list[int] = []

    class Dropping(ITOP):
        def update_masks(self, moment: Moment) -> MaskChange:
            return dataclasses.replace(super().update_masks(moment), grow=None)

    class Tossing(MaskUpdates):
        """Growth by the release's coin tosses; weights that are dropped and grow at once keep their values."""

        def put(self, number: int, new: Mapping[str, Tensor]) -> None:
            tosses = case.under(f"grow_uniform_{number // 4}/")
            grown = {}
            for name, mask in new.items():
                share = int((self._masks[name] & ~mask).sum()) / int((~mask).sum())
                grown[name] = mask | ((tosses[name.removesuffix(".weight")] < share).view_as(mask) & ~mask)
            super().put(number, grown)
            numbers.append(self.past[-1][1])

    case.train(Dropping(fraction=0.5), 16, kind=Tossing)
    case.compare_weights("final_param64/", 1e-9)
    first = sum(int(mask.sum()) for mask in case.masks(0).values())
    assert numbers[-1] < first
    method = registry.get("set", {"every": 4})
    masks = case.masks(0)
    weights = {name: p.detach() for name, p in case.model.named_parameters() if name in masks}
    moment = Moment(4, Length(16, 16), weights, weights, masks, first, torch.Generator().manual_seed(0))
    ours = changed(masks, method.update_masks(moment))  # type: ignore[attr-defined]
    assert [int(mask.sum()) for mask in ours.values()] == [int(mask.sum()) for mask in masks.values()]


@pytest.mark.parametrize("name", ["ltr", "lr-rewinding"])
def test_open_lth_keeps_the_same_largest_weights_but_one(name: str) -> None:
    method: Any = registry.get(name)
    with np.load(CASES / "openlth_prune_tinyres.npz", allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
        meta = json.loads(str(file["meta"]))
    names = [f"{layer}.weight" for layer in meta["prunable"]]
    sizes = {name: arrays[f"param/{name}"].double().abs() for name in names}
    masks = {name: torch.ones_like(size, dtype=torch.bool) for name, size in sizes.items()}
    left = meta["prunable_total"]
    for number, kept in enumerate(meta["kept"], start=1):
        assert kept == left - math.ceil(0.2 * left) - 1  # the threshold itself is removed as well
        now = Moment(1, Length(1, 1), sizes, {}, masks, kept, torch.Generator())
        masks, left = changed(masks, method.update_masks(now)), kept
        for layer in meta["prunable"]:
            theirs = arrays[f"mask_{number}/{layer}"].bool()
            assert torch.equal(theirs, masks[f"{layer}.weight"]), (number, layer)


def test_gmp_of_itop_whose_schedule_misses_the_sparsity_by_one_epoch() -> None:
    case = Case("gmp_itop_tinyres_d0.1_e1-5", "tinyres")

    class Released(GMP):  # type: ignore[misc]
        def update_steps(self, length: Length) -> Sequence[int]:
            return range(2, length.steps, 2)  # before epochs 1, 2, … of two steps

        def update_masks(self, moment: Moment) -> MaskChange:
            epoch = min(moment.step // 2, 5)
            sparsity = 0.9 * (1 - (1 - (epoch - 1) / 5) ** 3)
            sizes = {name: mask.numel() for name, mask in moment.masks.items()}
            return MaskChange(
                {name: w.abs() for name, w in moment.weights.items()},
                {name: size - int(sparsity * size) for name, size in sizes.items()},
            )

    case.train(Released(), 16)
    case.compare_weights("final_param64/", 1e-9)
    kept = sum(int(mask.sum()) for mask in case.masks(7).values())
    assert kept == 551 > 511  # of 5112; ours keeps the 511 of sparsity 0.9
