"""Tests of provenance: recorded without git as well, and plug-ins are identified by their files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pai_bench import recipes
from pai_bench.cells import Cell
from pai_bench.core import plugins
from pai_bench.experiment import provenance
from pai_bench.experiment.runner import Run
from pai_bench.models import registry as building
from pai_bench.scoring import registry

METHOD = """
from dataclasses import dataclass
from pai_bench.registry import register

@register("NAME")
@dataclass(frozen=True)
class Mine:
    def __call__(self, problem):
        return {name: FACTOR * w.abs() for name, w in problem.weights.items()}

from torch import nn
from pai_bench.models import register_model

@register_model("NAME")
def mine(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Install the package as from a wheel: methods inside the package, no git."""
    ours = provenance.PACKAGE
    place = tmp_path / "site-packages" / "pai_bench"
    without = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours, place, ignore=without)
    if not (place / "methods").exists():
        shutil.copytree(ours.parent / "methods", place / "methods", ignore=without)
    caches = (provenance.source_hash, provenance._commit)
    for cached in caches:
        cached.cache_clear()
    monkeypatch.setattr(provenance, "PACKAGE", place)
    yield place
    for cached in caches:
        cached.cache_clear()


@pytest.mark.slow
def test_an_installed_package_is_identified_by_its_sources(installed: Path) -> None:
    found = provenance.collect()
    assert found["commit"] is found["dirty_diff_hash"] is None
    assert {"python", "torch", "numpy"} <= found["versions"].keys() and found["host"] and found["platform"]
    for changed in ("methods/snip.py", "training/loop.py", "recipes/quick.toml"):
        provenance.source_hash.cache_clear()
        (installed / changed).write_bytes((installed / changed).read_bytes() + b"\n")
        assert provenance.source_hash() != found["source_hash"]
        (installed / changed).write_bytes((installed / changed).read_bytes()[:-1])
    provenance.source_hash.cache_clear()
    assert provenance.source_hash() == found["source_hash"]


@pytest.mark.slow
def test_a_checkout_and_its_wheel_have_one_source_hash(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = provenance.source_hash()
    provenance.source_hash.cache_clear()
    monkeypatch.setattr(provenance, "PACKAGE", Path(provenance.__file__).resolve().parents[1])
    assert provenance.source_hash() == wheel


def fingerprint(method: str, model: str = "conv8") -> str:
    return Run(Cell(method, "digits", model, 0.9, 0), recipes.load("quick", "digits", model)).fingerprint()


def test_an_editors_lock_file_is_not_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text("")
    (tmp_path / "methods" / ".#mine.py").symlink_to("me@host.1:2")
    (tmp_path / "gone.py").symlink_to("nowhere")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    assert set(provenance._sources()) == {"methods/mine.py"}


def test_a_changed_file_of_a_plugin_makes_its_results_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_plugins", {})
    ours = fingerprint("snip")
    methods, models = [], []
    for version, factor in enumerate((1, 2, 1)):
        place = tmp_path / str(version) / f"source_of_mine_{version}.py"
        place.parent.mkdir()
        place.write_text(METHOD.replace("NAME", "mine").replace("FACTOR", str(factor)))
        for catalogue in (registry._methods, building._builders):
            catalogue._things.pop("mine", None)
        plugins.load_plugin(place)
        methods.append(fingerprint("mine"))
        models.append(fingerprint("snip", "mine"))
        assert place.name in plugins.plugins()
    assert methods[0] == methods[2] != methods[1]
    assert models[0] == models[2] != models[1]
    assert fingerprint("snip") == ours and plugins.source_hash(registry.module("snip")) is None


def test_plugin_files_with_one_name_have_their_own_source_hashes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_plugins", {})
    hashes = {}
    for folder in ("a", "b"):
        place = tmp_path / folder / "mine.py"
        place.parent.mkdir()
        place.write_text(METHOD.replace("NAME", f"mine-{folder}").replace("FACTOR", "1"))
        plugins.load_plugin(place)
        plugins.load_plugin(place)  # a second time it is there
        hashes[f"mine-{folder}"] = hashlib.sha256(place.read_bytes()).hexdigest()
    assert {name: plugins.source_hash(registry.module(name)) for name in hashes} == hashes
    assert sorted(plugins.plugins()["mine.py"].split(",")) == sorted(hashes.values())
