"""Labels of panels, series and sparsities, shared by tables and figures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from pai_bench.analysis import display_names
from pai_bench.analysis.columns import EPOCHS
from pai_bench.cells import DENSE

SAME_NETWORK = {"wide_resnet18": "resnet18", "tiny_wide_resnet18": "tiny_resnet18"}
"""Networks that are another one under a second name: Synaptic-Flow's WideResNet-18 ignores its width."""

_AT = {
    "last": "after the last epoch",
    "best-test": "at the best test epoch",
    "best-val": "at the best validation epoch",
}


@dataclass(frozen=True)
class Names:
    """Methods, data sets and models of a report as papers print them; names displayed alike stay as they are.

    Models that are displayed alike but have no data set in common share the displayed name.
    """

    methods: dict[str, str]
    datasets: dict[str, str]
    models: dict[str, str]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Names:
        """Return the names for a table with the columns method, dataset and model."""
        return cls(
            display_names.distinct(table["method"].unique(), _method_name),
            display_names.distinct(table["dataset"].unique(), display_names.dataset_name),
            _model_names(table),
        )

    def panel(self, dataset: str, model: str, recipe: str) -> tuple[str, str, str]:
        """Return the displayed names of a panel."""
        return self.datasets[dataset], self.models[model], recipe

    def aliases(self, models: Iterable[str]) -> list[str]:
        """Return sentences that give the full names of models that share a displayed name."""
        found: dict[str, list[str]] = {}
        for model in dict.fromkeys(models):
            if [*self.models.values()].count(self.models[model]) > 1:
                found.setdefault(self.models[model], []).append(model)
        return [f"{shown} is {' and '.join(names)} in the data." for shown, names in found.items()]


def _model_names(table: pd.DataFrame) -> dict[str, str]:
    by_dataset = [
        display_names.distinct(models, display_names.model_name)
        for _, models in table[["dataset", "model"]].drop_duplicates().groupby("dataset", sort=False)["model"]
    ]
    names = table["model"].unique()
    return {
        name: name if any(found.get(name) == name for found in by_dataset) else display_names.model_name(name)
        for name in names
    }


def _method_name(method: str) -> str:
    return "Dense" if method == DENSE else display_names.method_name(method)


def same_networks(models: Iterable[str]) -> list[str]:
    """Return one sentence for each model that equals another one of the models: see SAME_NETWORK."""
    held = dict.fromkeys(models)
    second = [model for model in held if SAME_NETWORK.get(model) in held]
    return list(
        dict.fromkeys(
            f"{display_names.model_name(model)} is the same network as {display_names.model_name(SAME_NETWORK[model])},"
            " because its blocks ignore the width; both count as one setting in statistics over settings."
            for model in second
        )
    )


def panel_title(dataset: str, model: str, recipe: str) -> str:
    """Return the title of a panel."""
    return " · ".join(part for part in (dataset, model, recipe) if part)


def series_label(method: str, source: str, several_sources: bool, epoch: str | None = None) -> str:
    """Return the label of a series; with several sources, the label of a table's series includes its source.

    epoch: the epoch of the series (key of EPOCHS) where the panel has several; it is added unless the source names it.
    """
    parts = [source] if source and several_sources else []
    if epoch is not None and EPOCHS[epoch] not in source:
        parts.append(EPOCHS[epoch])
    return f"{method} [{', '.join(parts)}]" if parts else method


def per_cent(sparsity: float) -> str:
    """Format a sparsity in per cent without superfluous digits, but never rounded to 100."""
    for digits in range(1, 12):
        text = f"{100 * sparsity:.{digits}f}".rstrip("0").rstrip(".")
        # Relative to the density: 99.99 % must not become 100 %.
        if digits >= 2 and abs(float(text) / 100 - sparsity) < 0.002 * (1 - sparsity):
            return text
        if math.isclose(float(text) / 100, sparsity, rel_tol=0, abs_tol=1e-12):
            return text
    return repr(100 * sparsity)


def measure(recipes: Iterable[str]) -> str:
    """Return the axis label for panels with these recipes; a recipe's name shows if it uses the validation split."""
    parts = {"validation" if "data.split=validation" in recipe else "test" for recipe in recipes}
    return f"{' or '.join(sorted(parts)).capitalize()} accuracy (%)"


def measured_at(recipes: Iterable[str], epochs: Iterable[str]) -> str:
    """Return the measure and its epoch, as "Test accuracy (%) after the last epoch"; labels mark several epochs."""
    found = set(epochs)
    if found == {""}:
        return measure(recipes).replace("(%)", "(%; epoch not stated)")
    if len(found) == 1:
        return f"{measure(recipes)} {_AT[found.pop()]}"
    usual = "after the last epoch unless stated" if "last" in found else "at the epoch"
    return f"{measure(recipes)} {usual} in brackets"


def decimals(std: float) -> int:
    """Return the decimals of a percentage: as many as show two digits of its deviation (a fraction), at most two."""
    points = 100 * std
    return 2 if not points >= 0.995 else 1 if points < 9.95 else 0
