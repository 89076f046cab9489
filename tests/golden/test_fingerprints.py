"""Fingerprints of all built-in methods under four recipes, held to literal values: refactoring must keep results valid.

Write the table with `python -m tests.golden.test_fingerprints` when a method or a recipe really changes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.experiment.run import Run
from pai_bench.scoring import registry

TABLE = Path(__file__).parent / "fingerprints.json"
SETTINGS = (
    ("quick", "digits", "conv8"),
    ("frankle", "cifar10", "resnet20"),
    ("prospr", "cifar100", "resnet20"),
    ("grasp", "tiny-imagenet", "resnet32-wide"),
)


def fingerprints(recipe: str, dataset: str, model: str) -> dict[str, str]:
    """The fingerprint of each built-in method, by name, and of one control."""
    loaded = recipes.load(recipe, dataset, model)
    specs = [*(name for name in registry.names() if registry.is_builtin(name)), "snip:control=shuffle"]
    return {spec: Run(Cell(spec, dataset, model, 0.9, 0), loaded).fingerprint() for spec in specs}


@pytest.mark.parametrize("setting", SETTINGS, ids="-".join)
def test_fingerprints_equal_the_stored_ones(setting: tuple[str, str, str]) -> None:
    assert fingerprints(*setting) == json.loads(TABLE.read_text(encoding="utf-8"))["-".join(setting)]


if __name__ == "__main__":
    table = {"-".join(setting): fingerprints(*setting) for setting in SETTINGS}
    TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
