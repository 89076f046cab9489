"""Error messages for mistyped names and options, without importing torch, so that they appear at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

_SYNONYMS = {
    **{"learning_rate": "lr", "epoch": "epochs", "bs": "batch_size", "batch": "batch_size", "wd": "weight_decay"},
    **{"num_epochs": "epochs", "n_epochs": "epochs", "batchsize": "batch_size", "dtype": "dtype"},
}
_DEVICES = ("device", "devices", "gpu", "gpus", "cuda", "cpu", "gpu_id")
_ALL = "all"


def check_names(methods: str | None, datasets: str | None, plugins: Sequence[Path] | None) -> None:
    """Check names before torch is loaded; names that plug-ins and other packages may register are accepted.

    Raises: PaiBenchError for an unknown method, hyper-parameter or data set.
    """
    from pai_bench.cells import parse_names, split_specs
    from pai_bench.core import method_index
    from pai_bench.datasets import files
    from pai_bench.errors import unknown

    if methods is not None and method_index.is_complete(plugins or ()):
        specs = split_specs(methods)
        method_index.check([] if specs == [_ALL] else specs)
    if datasets is not None and not plugins:
        for name in parse_names("--datasets", datasets):
            if name not in files.names():
                raise unknown("data set", name, files.names())


def option(name: str, command: str) -> str | None:
    """Return the remedy for an unknown option of a command; None if no better remedy than its help is known."""
    if command not in ("sweep", "prune", "train"):
        return None
    # The imports follow the first test, because most commands need none of them.
    from pai_bench.core import method_index
    from pai_bench.recipes import TABLES

    key = name.lstrip("-").replace("-", "_")
    if key in _DEVICES:
        return (
            "cells run on all GPUs that are visible, else on the CPU's cores: CUDA_VISIBLE_DEVICES=0 pai-bench …"
            " chooses a GPU, CUDA_VISIBLE_DEVICES= the CPU" + (", --workers how many" if command == "sweep" else "")
        )
    key = _SYNONYMS.get(key, key)
    tables = [table for table, kind in TABLES.items() if key in {field.name for field in fields(kind)}]
    if tables:
        return f"it is a value of the recipe: {' or '.join(f'--set {table}.{key}={_value(name)}' for table in tables)}"
    owners = [e.name for e in method_index.builtin().values() if key in dict(e.hyperparameters)]
    if owners:
        flag = "--methods" if command == "sweep" else "--method"
        return f"it is a hyper-parameter of {', '.join(owners)}: {flag} {owners[0]}:{key}={_value(name)}"
    return None


def _value(name: str) -> str:
    """Return the value typed after the option."""
    arguments = sys.argv[1:]
    for index, argument in enumerate(arguments):
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name and index + 1 < len(arguments) and not arguments[index + 1].startswith("--"):
            return arguments[index + 1]
    return "…"
