"""Training with fixed masks agrees with the five masking mechanisms of released code.

ProsPr, GraSP, SNIP (mi-lad), FORCE and Synaptic-Flow mask weights or gradients in five ways that give the same losses,
kept weights, biases, norms and running statistics. They differ in what they store at pruned positions, which is not
compared: here it is zero.
"""

from __future__ import annotations

import dataclasses

import torch

from pai_bench import recipes
from pai_bench.training.eager_step import Step

from .test_mask_updates import Case


def test_five_steps_with_fixed_masks_equal_the_releases() -> None:
    case = Case("train_masked_tinyres", "tinyres")
    hyper = case.meta["hyper"]
    masks = {f"{name}.weight": mask.bool() for name, mask in case.under("mask/").items()}
    settings = dataclasses.replace(
        recipes.load("quick", "digits", "conv8").train,
        lr=hyper["lr"],
        momentum=hyper["momentum"],
        weight_decay=hyper["weight_decay"],
        nesterov=hyper["nesterov"],
    )
    one_step = Step(case.model, masks, settings)
    losses = []
    for step in range(hyper["steps"]):
        x, y = case.arrays[f"x{step}"].double(), case.arrays[f"y{step}"].long()
        one_step.total.zero_()
        one_step(x, y, settings.lr)
        losses.append(float(one_step.total) / len(x))
    assert one_step.masked.intact()
    mechanisms = case.under("loss/")
    assert len(mechanisms) == 5
    for name, theirs in mechanisms.items():  # our sum is in float32
        assert (torch.tensor(losses, dtype=torch.float64) - theirs).abs().max() < 1e-6, name
    ours = dict(case.model.named_parameters()) | dict(case.model.named_buffers())
    compared = 0
    for prefix in ("final_effective/", "final_other/", "final_buffer/"):
        for name, theirs in case.under(prefix).items():
            assert (ours[name].detach() - theirs).abs().max() <= 1e-9 * theirs.abs().max(), name
            compared += 1
    assert compared == len(list(case.model.parameters())) + 2 * 6  # and the mean and variance of six norms
    assert all(not ours[name].detach()[~mask].any() for name, mask in masks.items())
