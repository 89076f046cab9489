"""The method under test, and its runs on each network, which several laws share."""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pai_bench.cells import MethodSpec
from pai_bench.errors import PaiBenchError
from pai_bench.scoring import prunable, registry
from pai_bench.testing.changes import Setting, changed
from pai_bench.testing.laws import SPARSITY
from pai_bench.testing.networks import NETWORKS, batches
from pai_bench.testing.runs import Run, run

BATCH, WIDTH, DEPTH = 4, 64, 3
"""Scoring batch and network with which the cost is measured: its first and last layer hardly count."""

IMPLIED = {"nothing": ("sample-order", "loss-scale", "loss-sign"), "shape": ("sample-order", "loss-scale", "loss-sign")}
"""Invariances that follow from what a method sees, and that `sees` checks."""


class Subject:
    """A method with its hyper-parameters, on one device."""

    def __init__(self, method: str, device: torch.device, rounds: int) -> None:
        """Take a method as on the command line; rounds that it does not name are at most `rounds`.

        Raises: PaiBenchError for an unknown method or hyper-parameter, and for a control.
        """
        spec = MethodSpec.parse(method)
        if spec.control is not None:
            raise PaiBenchError(f"{method}: controls change masks, to which no law applies", "check the method itself")
        given = dict(spec.hyperparameters)
        cls = registry.method_class(spec.name)
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        default = defaults.get("rounds")
        if isinstance(default, int) and "rounds" not in given:
            given["rounds"] = min(default, rounds)
        self.name, self.device = method, device
        self.scorer: Any = registry.get(spec.name, given)
        self.facts = registry.facts(spec.name)
        self.claims: tuple[str, ...] = tuple(getattr(self.scorer, "invariant_to", ()))
        self._runs: dict[tuple[Any, ...], Run] = {}
        self._models: dict[tuple[str, str], nn.Module] = {}

    def run(
        self,
        network: str,
        *,
        sparsity: float = SPARSITY,
        device: torch.device | None = None,
        data: str = "",
        again: bool = False,
    ) -> Run:
        """Return the run on a network; `data` are the data that the method sees, and the others are replaced."""
        device = device or self.device
        key = network, sparsity, device.type, data, again
        if key not in self._runs:
            count = max(2, self.batches_needed())
            given = batches(torch.device("cpu") if device.type == "meta" else device, count=count)
            if data:
                others = batches(device, seed=2, count=count)
                given = [
                    (x if data == "inputs" else other, y) for (x, _), (other, y) in zip(given, others, strict=True)
                ]
            if device.type == "meta":
                given = [(x.to(device), y.to(device)) for x, y in given]
            setting = Setting(self._model(network, device), given)
            self._runs[key] = self.observed(setting, sparsity, stop=device.type == "meta")
            if "untouched" in self._runs[key].faults:
                # A method that changes the caller's model would otherwise spoil the runs that follow.
                self._models.clear()
        return self._runs[key]

    def after(self, network: str, change: str) -> tuple[Run, Callable[[dict[str, Tensor]], dict[str, Tensor]]] | None:
        """Return the run on a changed problem, and the new places of the weights; None where there is no such change.

        The model has the type of the scores, so that a change of its weights is exact.
        """
        model = copy.deepcopy(self._model(network, self.device)).double()
        found = changed(
            change, NETWORKS[network], Setting(model, batches(self.device, count=max(2, self.batches_needed())))
        )
        return None if found is None else (self.observed(found[0], SPARSITY), found[1])

    def size(self, network: str) -> int:
        """Return the number of prunable weights of a network."""
        return sum(weight.numel() for weight in prunable(self._model(network, self.device)).values())

    def _model(self, network: str, device: torch.device) -> nn.Module:
        """Return a network, the same one for all runs: a run leaves it as it was, or breaks a law."""
        key = network, device.type
        if key not in self._models:
            self._models[key] = NETWORKS[network].build(device)
        return self._models[key]

    def batches_needed(self) -> int:
        """Return the number of scoring batches that the method asks for, one for each round of fresh batches."""
        if hasattr(self.scorer, "batches_needed"):
            return int(self.scorer.batches_needed())
        return int(getattr(self.scorer, "rounds", 1)) if getattr(self.scorer, "fresh", False) else 1

    def declared_cost(self) -> float | None:
        """Return the cost that the facts state for one scoring batch, in forward passes."""
        return self.facts.cost({**dataclasses.asdict(self.scorer), "batches": 1, "batch_size": BATCH})

    def measured_cost(self) -> float | None:
        """Return the operations of scoring, divided by those of one forward pass; None after an error."""
        count = self.batches_needed()
        hidden = [layer for _ in range(DEPTH) for layer in (nn.Linear(WIDTH, WIDTH), nn.ReLU())]
        model = nn.Sequential(nn.Linear(2, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, 2)).to(self.device)
        for parameter in model.parameters():
            nn.init.uniform_(parameter, -0.3, 0.5, generator=None if parameter.is_cuda else _generator())
        data = [
            (torch.randn(BATCH, 2, generator=_generator()).to(self.device), torch.arange(BATCH, device=self.device) % 2)
            for _ in range(count)
        ]
        with FlopCounterMode(display=False) as forward:
            model(data[0][0])
        with FlopCounterMode(display=False) as scoring:
            found = self.observed(Setting(model, data), SPARSITY)
        return scoring.get_total_flops() / forward.get_total_flops() if found.masks else None

    def observed(self, setting: Setting, sparsity: float = SPARSITY, *, stop: bool = False) -> Run:
        """Prune the model of a setting."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return run(self.name, self.scorer, setting, sparsity, stop=stop)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)
