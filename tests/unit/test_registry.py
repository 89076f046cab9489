"""Methods and models of installed packages are found, and errors name the package."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from pai_bench.core.registry import Registry
from pai_bench.errors import PaiBenchError

PACKAGE = """
from dataclasses import dataclass

from torch import nn

from pai_bench.models import register_model
from pai_bench.registry import register


@register("strange")
@dataclass(frozen=True)
class Strange:
    def __call__(self, problem):
        return dict(problem.weights)


@register_model("stranger")
def build(channels, size, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
"""
ENTRIES = "[pai_bench.methods]\nany = pack\n[pai_bench.models]\nany = pack\n"


@pytest.mark.slow
def test_an_installed_package_adds_methods_and_models(tmp_path: Path) -> None:
    (tmp_path / "pack.py").write_text(PACKAGE)
    info = tmp_path / "pack-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pack\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    asks = "from pai_bench import models; from pai_bench.scoring import registry; "
    asks += "print('strange' in registry.names(), 'stranger' in models.names())"
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {asks}"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert said.stdout.split() == ["True", "True"]


def test_a_broken_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_pack.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [EntryPoint("many", "broken_pack", "frobs")]
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [e for e in entries if e.group == group])
    frobs: Registry[int] = Registry("frob", "frobs")
    with pytest.raises(PaiBenchError, match=r"frob many of the installed package broken_pack .* ZeroDivisionError"):
        frobs.names()


def test_built_in_methods_are_imported_once_and_no_name_is_registered_twice() -> None:
    calls = []
    frobs: Registry[int] = Registry("frob", "nobody's", lambda: calls.append(frobs.add("one", 1)))
    assert frobs.names() == ["one"] and frobs.get("one") == 1 and len(calls) == 1
    with pytest.raises(ValueError, match="frob 'one' is registered twice: by 1 and by 2"):
        frobs.add("one", 2)
    with pytest.raises(PaiBenchError, match="unknown frob 'on'"):
        frobs.get("on")
