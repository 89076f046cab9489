"""The public functions: listed, documented and typed, without loading torch at import."""

from __future__ import annotations

import ast
import pydoc
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import pai_bench
from pai_bench import data_files, models, results, scoring
from pai_bench import registry as earlier_registry
from pai_bench.errors import PaiBenchError
from tests.unit.test_results import result

SOURCE = Path(pai_bench.__file__)


def test_every_public_name_is_listed_and_documented_with_its_signature() -> None:
    assert set(pai_bench.__all__) <= set(dir(pai_bench))
    assert not {"import_module", "TYPE_CHECKING", "Any", "annotations"} & set(dir(pai_bench))
    page = pydoc.plain(pydoc.render_doc(pai_bench))
    for name in pai_bench.__all__:
        assert getattr(pai_bench, name).__doc__
        assert f"{name}(" in page
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pai_bench.nothing  # noqa: B018


@pytest.mark.slow
def test_listing_the_names_does_not_load_torch() -> None:
    check = "import pai_bench, sys; dir(pai_bench), pai_bench.load_results; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.slow
def test_plug_ins_register_by_the_public_names_and_data_sets_do_so_without_torch() -> None:
    assert pai_bench.register is scoring.register and pai_bench.Problem is scoring.Problem
    assert pai_bench.register is earlier_registry.register and pai_bench.register_model is models.register_model
    assert pai_bench.register_dataset is data_files.register_dataset
    assert pai_bench.register_source is data_files.register_source and pai_bench.Info is data_files.Info
    names = "Info, register_dataset, register_source"
    check = f"from pai_bench import {names}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_type_checkers_see_every_name_where_it_comes_from_when_running() -> None:
    (typed,) = (n for n in ast.parse(SOURCE.read_text()).body if isinstance(n, ast.If))
    imports = [node for node in typed.body if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    assert seen == pai_bench._HOMES
    assert set(pai_bench.__all__) == {"PaiBenchError", "list_methods", *seen}


def test_an_editable_install_is_a_plain_path_that_type_checkers_follow() -> None:
    # With an import hook, as setuptools makes for other layouts, mypy and editors find no pai_bench at all.
    project = SOURCE.parent.parent / "pyproject.toml"
    if not project.is_file():
        assert (SOURCE.parent / "methods" / "snip.py").is_file()  # a wheel
        return
    settings = tomllib.loads(project.read_text())["tool"]["setuptools"]
    assert settings["package-dir"] == {"": "."}
    for package in settings["packages"]:
        assert (project.parent / package.replace(".", "/") / "__init__.py").is_file()
    folders = [path.parent.relative_to(project.parent) for path in SOURCE.parent.rglob("__init__.py")]
    assert {".".join(folder.parts) for folder in folders} <= set(settings["packages"])


@pytest.mark.slow
def test_results_load_as_a_frame_equal_to_the_reports_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        results.write(tmp_path, result(method="snip", sparsity=1 - 1 / 3, seed=seed), {})
    frame = pai_bench.load_results(tmp_path)
    assert frame[["source", "method", "seed"]].values.tolist() == [["", "snip", 0], ["", "snip", 1]]
    assert frame["sparsity"].tolist() == pytest.approx([1 - 1 / 3] * 2, abs=1e-15) and "path" not in frame
    frame.to_csv(tmp_path / "table.csv", index=False)
    assert len(pai_bench.load_results(str(tmp_path), tables=[tmp_path / "table.csv"])) == 4
    monkeypatch.setenv("PAI_BENCH_RESULTS", str(tmp_path))
    assert len(pai_bench.load_results()) == 2
    with pytest.raises(PaiBenchError, match="no finished result"):
        pai_bench.load_results(tmp_path / "nothing")


@pytest.mark.slow
def test_stale_results_are_left_out(tmp_path: Path) -> None:
    results.write(tmp_path, result(seed=0), {})
    results.write(tmp_path, result(seed=5, fingerprint="f" * 16, finished_at="2020-01-01T00:00:00+00:00"), {})
    assert pai_bench.load_results(tmp_path)["seed"].tolist() == [0]
