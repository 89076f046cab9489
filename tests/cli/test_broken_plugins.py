"""Broken models, methods and data sets of plug-ins: one line states the cause, and the other cells run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import pai_bench, recipe, results

MODELS = """
import sys
from collections import namedtuple
import torch
from torch import nn
from pai_bench.models import register_model

Outputs = namedtuple("Outputs", ["aux", "logits"])

class Net(nn.Module):
    def __init__(self, channels, size, classes, answer, train_only=False):
        super().__init__()
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
        self.answer, self.train_only = answer, train_only

    def forward(self, x):
        logits = self.head(x)
        return logits if self.train_only and not self.training else self.answer(logits)

def named(name, answer, train_only=False):
    register_model(name)(lambda *facts: Net(*facts, answer, train_only))

def refuse(logits):
    raise ValueError("only on Mondays\\nand never twice")

named("aux", lambda logits: (logits, 0 * logits), train_only=True)
named("named", lambda logits: Outputs(-logits, logits))
named("mapping", lambda logits: {"loss": logits.sum(), "logits": logits})
named("other-key", lambda logits: {"out": logits})
named("none", lambda logits: None)
named("scalar", lambda logits: logits.sum())
named("spatial", lambda logits: logits[:, :, None, None])
named("raises", refuse)
named("exits", lambda logits: sys.exit(3))

@register_model("sixteen")
def sixteen(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, classes))

@register_model("five")
def five(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, 5))

@register_model("one-argument")
def one_argument(classes):
    return nn.Linear(64, classes)

@register_model("forgets")
def forgets(channels, size, classes):
    nn.Linear(64, classes)

@register_model("exits-at-once")
def exits_at_once(channels, size, classes):
    sys.exit("bye")

class Eager(Net):
    def forward(self, x):
        if not self.training:
            raise RuntimeError("eval mode is not written yet")
        return self.head(x)

@register_model("train-only")
def train_only(channels, size, classes):
    return Eager(channels, size, classes, None)
"""

GRID = ("--sparsities", "0.5", "--seeds", "0", "--where", "debug")
SWEEP = ("sweep", "--plugin", "models.py", "--methods", "snip", *GRID)

BROKEN = {
    "other-key": "cannot be trained on digits: the model returns a dict with the keys 'out' instead of logits",
    "none": "the model returns None instead of logits",
    "scalar": "returns logits [] for 2 images of digits",
    "spatial": "returns logits [2, 10, 1, 1] for 2 images of digits",
    "five": "returns logits [2, 5] for 2 images of digits",
    "sixteen": "cannot be trained on digits: RuntimeError: ",
    "raises": "cannot be trained on digits: ValueError: only on Mondays",
    "exits": "cannot be trained on digits: SystemExit: 3",
    "one-argument": "cannot be built for digits: TypeError: ",
    "forgets": "the builder of model forgets returned None",
    "exits-at-once": "cannot be built for digits: RuntimeError: its builder ended the program: SystemExit('bye')",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "models.py").write_text(MODELS)
    return tmp_path


def test_logits_are_found_in_the_output_of_a_model(folder: Path) -> None:
    done = pai_bench(folder, *SWEEP, "--models", "aux,named,mapping", "--recipe", recipe(folder))
    assert done.returncode == 0, done.stderr
    found = results(folder / "results").values()
    assert sorted({(plain["model"], plain["status"]) for plain in found}) == [
        (model, "ok") for model in ("aux", "mapping", "named")
    ]
    for plain in found:  # the first layer of all is the same, and so is what is computed
        assert plain["effective_sparsity"] == plain["actual_sparsity"]
        assert plain["costs"]["flops_dense"] == 2 * 640
    assert len({plain["accuracy"] for plain in found}) == 2  # dense and snip


def test_broken_models_are_left_out_and_the_others_run(folder: Path) -> None:
    names = ",".join(["aux", *BROKEN])
    planned = pai_bench(folder, *SWEEP, "--models", names, "--recipe", recipe(folder), "--dry-run")
    assert planned.returncode == 0 and "2 to run" in planned.stderr
    done = pai_bench(folder, *SWEEP, "--models", names, "--recipe", recipe(folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    for model, cause in BROKEN.items():
        (line,) = (line for line in lines if f"model {model} " in line)
        assert line.startswith("left out: ") and cause in line
    assert {plain["model"] for plain in results(folder / "results").values()} == {"aux"}


def test_a_broken_model_alone_is_refused(folder: Path) -> None:
    done = pai_bench(folder, *SWEEP, "--models", "one-argument", "--recipe", recipe(folder))
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 2, done.stderr
    assert done.stderr.startswith("error: ") and BROKEN["one-argument"] in done.stderr
    assert not (folder / "results").exists()


def test_a_model_whose_cost_cannot_be_counted_does_not_stop_the_sweep(folder: Path) -> None:
    done = pai_bench(folder, *SWEEP, "--models", "train-only,conv8", "--recipe", recipe(folder))
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "cost unknown for train-only on digits (RuntimeError: eval mode is not written yet)" in done.stderr
    assert {plain["model"] for plain in results(folder / "results").values()} == {"conv8"}


PLUGIN = """
import sys
from dataclasses import dataclass
import numpy as np
from pai_bench.data_files import Info, register_dataset
from pai_bench.registry import register

@register("raises")
@dataclass(frozen=True)
class Raises:
    def __call__(self, problem):
        raise ZeroDivisionError("one by zero\\nand again")

@register("exits")
@dataclass(frozen=True)
class Exits:
    def __call__(self, problem):
        sys.exit(3)

@register("own")
@dataclass(frozen=True)
class Own:
    def __call__(self, problem):
        return {name: weight.abs() for name, weight in problem.weights.items()}

def part(n, generator):
    labels = np.arange(n) % 3
    images = generator.integers(0, 80, (n, 1, 8, 8)) + 80 * labels[:, None, None, None]
    return images.astype(np.uint8), labels

def build(n):
    generator = np.random.default_rng(0)
    return (*part(n, generator), *part(30, generator))

@register_dataset("fine", Info(1, 8, 3, 60, 30))
def fine(root):
    return build(60)

@register_dataset("short", Info(1, 8, 3, 60, 30))
def short(root):
    return build(59)

@register_dataset("lost", Info(1, 8, 3, 60, 30))
def lost(root):
    return np.load(root / "lost.npy")

@register_dataset("leaves", Info(1, 8, 3, 60, 30))
def leaves(root):
    sys.exit("bye")
"""

BROKEN_PLUGINS = {
    "method raises": "raised ZeroDivisionError: one by zero",
    "method exits": "raised SystemExit: 3",
    "short": "its training part has images (59, 1, 8, 8)",
    "data set lost": "cannot be built: FileNotFoundError: ",
    "data set leaves": "cannot be built: SystemExit: bye",
}


@pytest.fixture
def plugin(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    fast = Path(recipe(tmp_path))
    tables = "".join(f"[datasets.{name}]\n" for name in ("fine", "short", "lost", "leaves"))
    fast.write_text(fast.read_text() + tables)
    return "sweep", "--plugin", "plugin.py", "--recipe", str(fast), *GRID, "--models", "conv8"


def test_broken_methods_and_data_sets_are_left_out_and_the_others_run(tmp_path: Path, plugin: tuple[str, ...]) -> None:
    asked = (*plugin, "--methods", "raises,own,exits", "--controls", "shuffle", "--datasets", "short,lost,fine,leaves")
    done = pai_bench(tmp_path, *asked)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("left out: ")]
    assert len(lines) == len(BROKEN_PLUGINS), done.stderr
    for name, cause in BROKEN_PLUGINS.items():
        (line,) = (line for line in lines if f"{name} " in line or f"{name}:" in line)
        assert cause in line
    found = {(plain["dataset"], plain["method"]) for plain in results(tmp_path / "results").values()}
    assert found == {("fine", "dense"), ("fine", "own"), ("fine", "own:control=shuffle")}
    again = pai_bench(tmp_path, *asked)
    assert again.returncode == 1 and "3 done, 0 to run" in again.stderr


@pytest.mark.parametrize(
    ("asked", "cause"), [(("--methods", "raises"), "method raises"), (("--datasets", "lost"), "data set lost")]
)
def test_a_broken_method_or_data_set_alone_is_refused(
    tmp_path: Path, plugin: tuple[str, ...], asked: tuple[str, ...], cause: str
) -> None:
    done = pai_bench(tmp_path, *plugin, *asked)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 2, done.stderr
    assert done.stderr.startswith(f"error: {cause} ") and not (tmp_path / "results").exists()
