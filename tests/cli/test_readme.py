"""Tests that the commands in README and docs are valid and work."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from pai_bench import models, recipes, results
from pai_bench.datasets import files
from pai_bench.results import mask_files
from pai_bench.scoring.problem import prunable
from tests.cli.program import pai_bench
from tests.cli.test_status import CELLS, DENSE, fail, plan, put
from tests.unit.test_results import result

TOP = Path(__file__).parents[2]
EXAMPLES = TOP / "examples" / "README.md"
DOCS = [TOP / "README.md", TOP / "CONTRIBUTING.md", EXAMPLES, *sorted((TOP / "docs").glob("*.md"))]


SLURM = {
    "scontrol": "printf 'ClusterName = here\\nMaxArraySize = 1001\\n'",
    **dict.fromkeys(("srun", "sbatch", "squeue"), "exit 0"),
}
"""Answers of an empty cluster, for commands with options that SLURM alone has."""


def commands() -> list[str]:
    """Every `pai-bench …` in a code block or between backticks."""
    found = []
    for path in DOCS:
        text = path.read_text(encoding="utf-8")
        found += re.findall(r"^ {4}(pai-bench .*?)(?:\s+#.*)?$", text, re.MULTILINE)
        found += re.findall(r"`(pai-bench [^`]+)`", text)
    return sorted(set(found))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a folder with all files named in the documents; data sets exist by name only."""
    folder = tmp_path_factory.mktemp("readme")
    for dataset in files.names():
        source = files.source(dataset)
        for file in source.files:
            place = folder / "data" / source.folder / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        if source.files:
            files.accept(dataset, folder / "data")
    (folder / "table.csv").write_text("method,dataset,model,sparsity,seed,accuracy\nsnip,digits,conv8,0.9,0,0.5\n")
    shutil.copytree(TOP / "results" / "reference", folder / "results" / "reference")
    shutil.copytree(TOP / "examples", folder / "examples")
    (folder / "bin").mkdir()
    for name, answer in SLURM.items():
        (folder / "bin" / name).write_text(f"#!/bin/sh\n{answer}\n")
        (folder / "bin" / name).chmod(0o755)
    (folder / "sweep.toml").write_text('methods = ["prospr", "snip"]\n')
    sweep_files = (TOP / "docs" / "sweep-files.md").read_text(encoding="utf-8")
    (folder / "paper.toml").write_text(re.findall(r"```toml\n(.*?)```", sweep_files, re.DOTALL)[0])
    method = (TOP / "docs" / "methods.md").read_text(encoding="utf-8")
    (folder / "my_method.py").write_text(re.findall(r"```python\n(.*?)```", method, re.DOTALL)[0])
    model = (TOP / "docs" / "models.md").read_text(encoding="utf-8")
    (folder / "my_model.py").write_text(re.findall(r"```python\n(.*?)```", model, re.DOTALL)[0])
    data = (TOP / "docs" / "data.md").read_text(encoding="utf-8")
    (folder / "my_data.py").write_text(re.findall(r"```python\n(.*?)```", data, re.DOTALL)[0])
    quick = (TOP / "pai_bench" / "recipes" / "quick.toml").read_text(encoding="utf-8")
    (folder / "my_recipe.toml").write_text(quick + re.findall(r"```toml\n(.*?)```", data, re.DOTALL)[0])
    weights = prunable(models.build("conv8", 1, 8, 10))
    mask_files.save(folder / "masks.npz", {name: (weight > 0).numpy() for name, weight in weights.items()})
    seen = folder / "seen"
    plan(seen, cells=CELLS[:2])
    put(seen, DENSE)
    fail(seen, CELLS[1], "RuntimeError: as in the documents")
    for method in ("snip", "grasp", "erk"):  # for comparisons of masks
        for kind, granularity in (("train", "weight"), ("noise", "weight"), ("train", "channel")):
            scoring, name = {"data": kind, "granularity": granularity}, f"{kind}-{granularity}"
            about = {"recipe": f"quick-{name}", "recipe_values": {"scoring": scoring}, "fingerprint": name}
            mask = {"w": np.array([True, method == "snip", method == "erk", False])}
            results.write(folder / "compared", result(method=method, sparsity=0.95, **about), mask)
    network = models.build("conv8", 1, 8, 10)
    mask = {name: np.ones(weight.shape, bool) for name, weight in prunable(network).items()}
    about = {"recipe": "quick", "recipe_values": recipes.load("quick", "digits", "conv8").values()}
    results.write(folder / "measured", result(method="snip", sparsity=0.8, **about), mask)
    for name in ("a", "b", "cluster-a", "cluster-b"):  # of the documents' merges
        put(folder / name, DENSE)
    return folder


@pytest.mark.parametrize("command", commands())
def test_commands_in_the_documents_are_valid(folder: Path, command: str) -> None:
    arguments = [word for word in shlex.split(command)[1:] if word != "…"]
    if arguments[0] == "sweep":
        # The folder of the document does not exist here, and an option may be given once.
        arguments = ["data" if before == "--data-dir" else word for before, word in pairwise(["", *arguments])]
        arguments += ["--dry-run"] if "--data-dir" in arguments else ["--dry-run", "--data-dir", "data"]
    if arguments[0] == "doctor":  # no cluster here; its own tests send jobs
        arguments = [word for word in arguments if word != "--job"]
    if arguments[0] == "compare-masks":
        files = any(word.endswith(".npz") for word in arguments)
        arguments = ["masks.npz" if word.endswith(".npz") else word for word in arguments]
        arguments += [] if files else ["--results", "compared"]
    if arguments[0] == "speed":
        arguments = [word for word in arguments if word not in ("--results", "results")]
        arguments += ["--results", "measured", *([] if "--rounds" in arguments else ["--rounds", "3"])]
    if arguments[0] in ("status", "logs", "cancel"):
        arguments += ["--results", "seen"]
    arguments = ["snip/digits/conv8/0.9/0" if word == "CELL" else word for word in arguments]
    if arguments[0] == "data":  # nothing is fetched here, and the folders are nobody's
        arguments += ["--data-dir", "data"] if arguments[1] == "list" else ["--help"]
    if arguments[0] == "train":
        arguments += ["--set", "train.epochs=1", "--set", "train.warmup_epochs=0", "--results", "trained"]
    if arguments[0] == "reproduce" and arguments[1] != "list":
        arguments += ["--dry-run", "--data-dir", "data"]
    if arguments[0] == "report" and "--from" not in arguments:
        arguments += ["--from", "table.csv"]
    on_slurm = {"PAI_BENCH_WHERE": "slurm", "PATH": f"{folder / 'bin'}:{os.environ['PATH']}"}
    done = pai_bench(folder, *arguments, env=on_slurm if {"--profile", "--slurm", "--canary"} & {*arguments} else None)
    assert done.returncode == (3 if {"--fail-on-missing", "--check"} & {*arguments} else 0), done.stderr


def test_the_documents_show_the_main_commands() -> None:
    text = "\n".join(commands())
    assert "pai-bench sweep --methods prospr,snip --datasets cifar100" in text and "pai-bench report" in text
    first_screen = "\n".join((TOP / "README.md").read_text(encoding="utf-8").splitlines()[:30])
    assert re.findall(r"^ {4}make (\w+)", first_screen, re.MULTILINE) == ["demo", "test"]


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results.write(tmp_path / "results", result(), {})
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", (TOP / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
    generator = torch.Generator().manual_seed(0)
    batches = [(torch.rand(6, 8, generator=generator), torch.arange(6) % 3) for _ in range(4)]
    names: dict[str, object] = {"model": model, "batches": batches}
    exec(snippet, names)
    masks, scores = names["masks"], names["scores"]
    assert isinstance(masks, dict) and isinstance(scores, dict)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.02 * (128 + 48))
    assert set(scores) == {"1.weight", "3.weight"}
    assert not model[1].weight[~masks["1.weight"]].any()
