"""Learning rates and lengths of epochs, also where a method trains in several cycles."""

from __future__ import annotations

import math

from pai_bench.recipes import Train
from pai_bench.scoring.mask_updates import Rewinding


def learning_rate(train: Train, epoch: int, step: int, steps: int) -> float:
    """Return the learning rate of a step (one of `steps` in a complete epoch); epochs and steps count from 0.

    The schedule "step" multiplies by gamma at each milestone, "cosine" decays to 0 at the end; both follow a linear
    warm-up. When the warm-up ends inside an epoch, its last step exceeds the full rate by up to one step's increment.
    """
    done = epoch + step / steps
    if done < train.warmup_epochs:
        return train.lr * (done + 1 / steps) / train.warmup_epochs
    if train.schedule == "cosine":
        # A training limited in steps may end inside an epoch, and the cosine must reach 0 there.
        length = train.steps / steps if train.steps else train.epochs
        progress = (done - train.warmup_epochs) / (length - train.warmup_epochs)
        return train.lr * 0.5 * (1 + math.cos(math.pi * progress))
    drops = sum(epoch >= milestone for milestone in train.milestones)
    drops += sum(epoch * steps + step >= milestone for milestone in train.milestone_steps)
    return train.lr * train.gamma**drops


def epoch_steps(train: Train, steps: int) -> list[int]:
    """Return the number of steps in each epoch of a training whose complete epochs have `steps` steps."""
    if not train.steps:
        return [steps] * train.epochs
    whole, rest = divmod(train.steps, steps)
    return [steps] * whole + [rest] * (rest > 0)


def recipe_epochs(epochs: int, rewinding: Rewinding | None) -> list[int]:
    """Return the epoch of the recipe (from 0) of each epoch that is trained: several cycles with `rewinding`."""
    cycle = [] if rewinding is None else list(range(rewinding.epoch, epochs)) * rewinding.cycles
    return [*range(epochs), *cycle]
