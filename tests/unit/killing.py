"""A small training, and a program that kills it with SIGKILL at random moments until it ends all the same."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from pai_bench import models, recipes
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.datasets import loading
from pai_bench.recipes import Recipe
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.loop import train


def recipe(**changes: object) -> Recipe:
    quick = recipes.load("quick", "digits", "conv8")
    settings = {"epochs": 2, "warmup_epochs": 0.5, "batch_size": 64, "evaluate_every": 2, **changes}
    return dataclasses.replace(quick, train=dataclasses.replace(quick.train, **settings))  # type: ignore[arg-type]


def small_data(images: int) -> loading.InMemoryDataset:
    data = loading.load("digits")
    return dataclasses.replace(data, train_x=data.train_x[:images], train_y=data.train_y[:images])


def network() -> nn.Module:
    """BatchNorm, momentum and a random forward pass: all that a resumed run could get wrong."""
    conv = models.build("conv8", 1, 8, 10)
    models.initialise(conv, "torch", 3)
    return nn.Sequential(nn.Dropout(0.1), conv)


def trained(
    data: loading.InMemoryDataset,
    settings: Recipe,
    callback: Callback | None = None,
    checkpoints: Checkpoints | None = None,
) -> str:
    """Return the outcome of a training: hashes of weights and buffers, the curve, the accuracy."""
    model = network()
    generator = torch.Generator().manual_seed(1)
    masks = {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in model.named_parameters() if p.dim() > 1}
    saved = checkpoints.load(fingerprint="f") if checkpoints is not None else None
    result = train(model, masks, data, settings, 7, callback, checkpoints, saved, record={"fingerprint": "f"})
    return json.dumps([tensors_hash(model.state_dict()), dataclasses.asdict(dataclasses.replace(result, seconds=0.0))])


class StopAfter(Callback):
    """Asks for a stop after so many steps."""

    def __init__(self, checkpoints: Checkpoints, steps: int) -> None:
        self.checkpoints, self.left = checkpoints, steps

    def tick(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.checkpoints.request_stop()


def interrupted_until_done(
    data: loading.InMemoryDataset, settings: Recipe, folder: Path, steps: int
) -> tuple[str, int]:
    """Stop every `steps` steps; return the outcome of the training and the number of stops."""
    for attempt in range(1000):
        checkpoints = Checkpoints(folder, f"a{attempt}")
        try:
            return trained(data, settings, StopAfter(checkpoints, steps), checkpoints), attempt
        except Interrupted:
            pass
    raise AssertionError("it does not come to an end")


def main(root: Path, kills: int) -> None:
    """Print the number of kills, the outcomes of the trainings that were killed, and an undisturbed one's.

    Processes are forked, which spares loading torch each time.
    """
    torch.set_num_threads(1)
    data, settings = small_data(512), recipe(epochs=6)
    died, ends = 0, []
    # A fast machine may end a training before all kills: the next training gets those that are left.
    while died < kills:
        folder = root / str(len(ends))
        folder.mkdir()
        while True:
            child = os.fork()
            if child == 0:
                checkpoints = Checkpoints(folder / "checkpoints", f"a{died}", every=random.choice([0.0, 0.01]))
                (folder / "end").write_text(trained(data, settings, None, checkpoints))
                os._exit(0)
            if died < kills:
                time.sleep(random.uniform(0.01, 0.3))
                os.kill(child, signal.SIGKILL)
            if os.waitpid(child, 0)[1] == 0:
                break
            died += 1
        ends.append(json.loads((folder / "end").read_text()))
    print(json.dumps({"died": died, "ends": ends, "undisturbed": json.loads(trained(data, settings))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
