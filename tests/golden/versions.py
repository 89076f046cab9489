"""Numbers of every method and of the trainer on fixed small inputs, to see when they move without a new version.

`python -m tests.golden.versions` writes the table again; it refuses where numbers moved under an old version.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pai_bench import models, recipes
from pai_bench.cells import MethodSpec
from pai_bench.datasets import loading
from pai_bench.models.initialisation import reset_parameters
from pai_bench.pruning import masking
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import registry
from pai_bench.training import loop
from tests.unit.nets import TinyNet, flat

TABLE = Path(__file__).parent / "versions.json"
SPARSITY = 0.8
VARIANTS = (
    "snip:bn=eval",
    "grasp:bn=eval",
    "grasp:temperature=1.0",
    "prospr:variant=first_order",
    "prospr:detach_first_buffer=true",
    "prospr:new_batches=false",
    "synflow:rounds=3",
    "synflow:rounds=3,count=released",
    "grasp:absolute=true",
    "grasp:rounds=3",
    "smart-ratio:shape=vgg,hybrid=true",
    "fts:per=batch",
    "hts:ranking=signed,temperature=1.0",
)
SHORT = {"dpai": {"steps": 20}}
"""Hyper-parameters of methods whose defaults take long."""
SCORE_TOLERANCE = 1e-6
TRAINER_TOLERANCE = 1e-3
"""Tolerance of float32 arithmetic in nine steps: about ten times the differences between kernels of one CPU."""


def pattern(shape: torch.Size | tuple[int, ...], key: int, modulus: int = 1009) -> Tensor:
    """float64 in [-1, 1] by integer arithmetic alone, so the same on every machine."""
    count = torch.Size(shape).numel()
    numbers = (torch.arange(count) * 7919 + key * 104729 + 13) ** 2 % modulus
    return ((2 * numbers - modulus + 1).double() / (modulus - 1)).reshape(shape)


def fill(model: nn.Module) -> nn.Module:
    """Set weights by pattern, scaled by fan-in; norms to something that is not their default."""
    with torch.no_grad():
        for key, (name, parameter) in enumerate(model.named_parameters()):
            values = pattern(parameter.shape, key)
            if parameter.ndim > 1:
                values = values * (6 / parameter[0].numel()) ** 0.5
            elif name.endswith("weight"):
                values = 1 + values / 2
            parameter.copy_(values)
    return model


def specs() -> list[str]:
    """All built-in methods, and variants of them."""
    return [*(name for name in registry.names() if registry.is_builtin(name)), *VARIANTS]


def method_numbers(text: str) -> dict[str, Any]:
    """The version of a method, its mask as hexadecimal digits, and sums of its scores by layer."""
    spec = MethodSpec.parse(text)
    scorer = registry.get(spec.name, {**SHORT.get(text, {}), **dict(spec.hyperparameters)})
    batches = [(pattern((12, 3, 6, 6), 50 + i, 10007), (torch.arange(12) * (i + 3)) % 10) for i in range(4)]
    pruner = Pruner(fill(TinyNet()), batches, scorer, name=text, initialise=reset_parameters)
    bits = flat(pruner.masks(SPARSITY)).int().tolist()
    sums = [[float(s.sum()), float((s * pattern(s.shape, 99)).sum())] for s in pruner.score(SPARSITY).values()]
    return {"version": registry.version(scorer), "mask": f"{int(''.join(map(str, bits)), 2):0122x}", "numbers": sums}


def trainer_numbers() -> dict[str, Any]:
    """The version of the trainer, and losses, accuracy and sums of the weights after two short runs."""
    numbers = []
    dataset = loading.load("digits")
    quick = recipes.load("quick", "digits", "conv8")
    for schedule, nesterov in (("step", False), ("cosine", True)):
        train = dataclasses.replace(
            quick.train,
            epochs=3,
            batch_size=500,
            lr=0.05,
            nesterov=nesterov,
            weight_decay=0.1,
            schedule=schedule,
            milestones=(1, 2) if schedule == "step" else (),
            warmup_epochs=0.5,
        )
        recipe = dataclasses.replace(quick, train=train, data=dataclasses.replace(quick.data, padding=1, flip=True))
        model = fill(models.build("conv8", 1, 8, 10))
        masks = {name: pattern(w.shape, 7) > -0.5 for name, w in model.named_parameters() if w.ndim > 1}
        masking.MaskedGradients(model, masks)
        trained = loop.train(model, masks, dataset, recipe, 0)
        numbers.append([epoch.loss for epoch in trained.curve])
        numbers += [
            [float(v.double().sum()), float((v.double() * pattern(v.shape, 99)).sum())]
            for v in model.state_dict().values()
            if v.is_floating_point()
        ]
    return {"version": loop.VERSION, "numbers": numbers}


def moved(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> bool:
    """Return True if two entries differ by more than the rounding of another machine."""
    first, second = (torch.tensor([x for row in entry["numbers"] for x in row]).double() for entry in (old, new))
    if first.shape != second.shape or old.get("mask") != new.get("mask"):
        return True
    return not torch.allclose(first, second, rtol=tolerance, atol=tolerance * float(first.abs().median()))


def read() -> dict[str, Any]:
    """The committed table."""
    table: dict[str, Any] = json.loads(TABLE.read_text()) if TABLE.exists() else {}
    return table


def main() -> None:
    old = read()
    new = {text: method_numbers(text) for text in specs()} | {"trainer": trainer_numbers()}
    for name, entry in new.items():
        tolerance = TRAINER_TOLERANCE if name == "trainer" else SCORE_TOLERANCE
        if name in old and old[name]["version"] == entry["version"]:
            if moved(old[name], entry, tolerance):
                sys.exit(f"the numbers of {name} moved: raise its version first")
            new[name] = old[name]
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in new.items())
    TABLE.write_text(f"{{\n{rows}\n}}\n")


if __name__ == "__main__":
    main()
