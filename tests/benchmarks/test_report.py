"""Reading 10,000 results of 160 epochs, a report on 1,000, tables of 50,000 rows and a figure of 200 panels."""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from rich.console import Console

from pai_bench import results
from pai_bench.analysis import figures
from pai_bench.analysis.collect import Collection, collect
from pai_bench.analysis.command import run
from pai_bench.analysis.figures import Material, Options
from pai_bench.analysis.report_tables import ReportTables, report_tables
from pai_bench.analysis.statistics import summarise
from pai_bench.results import Epoch, Layer, index
from pai_bench.sweep.monitoring.status import collect as collect_status
from tests.benchmarks.conftest import Compare
from tests.unit.test_results import result


@pytest.fixture
def folder(tmp_path: Path, measuring: bool) -> Callable[[int], Path]:
    """Makes a results folder with that many results; with few when nothing is measured."""

    def make(count: int) -> Path:
        curve = tuple(Epoch(epoch, 1.0 / epoch, 0.5 if epoch % 10 == 0 else None) for epoch in range(1, 161))
        layers = tuple(Layer(f"layer{i}.conv.weight", 9216, 921) for i in range(20))
        count = count if measuring else 50
        for number in range(count):
            sparsity = (0.9, 0.95, 0.98, 0.99)[number % 4]
            method = ("snip", "grasp", "synflow", "prospr", "random")[number // 4 % 5]
            whole = result(method=method, sparsity=sparsity, seed=number // 20, curve=curve, layers=layers)
            place = whole.key.path(tmp_path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps({**vars(whole), "curve": [vars(e) for e in curve],
                                         "layers": [vars(x) for x in layers]}))  # fmt: skip
        return tmp_path

    return make


def plain_reading(root: Path) -> pd.DataFrame:
    """Read the results in the obvious way: walk, json.load, json_normalize."""
    rows: list[dict[str, Any]] = []
    for path, _, files in os.walk(root / "runs"):
        rows += [json.loads(Path(path, name).read_text()) for name in files]
    return pd.json_normalize(rows)


def test_reading_ten_thousand_results(compare: Compare, folder: Callable[[int], Path]) -> None:
    root = folder(10_000)

    def read_again() -> Collection:
        results.index_path(root).unlink(missing_ok=True)
        return collect(root)

    collection = compare(read_again, lambda: plain_reading(root), "of json_normalize", rounds=3)
    assert len(collection.rows) == len(plain_reading(root))


def test_reading_ten_thousand_results_from_the_index(compare: Compare, folder: Callable[[int], Path]) -> None:
    root = folder(10_000)
    index.read(root)

    def parse_all() -> None:
        for place in results.result_paths(root):
            results.read_plain(place)

    rows = compare(lambda: index.read(root).rows, parse_all, "of parsing all", rounds=5, most=0.1)
    assert len(rows) == len(list(results.result_paths(root)))


def test_status_of_ten_thousand_results(compare: Compare, folder: Callable[[int], Path]) -> None:
    root = folder(10_000)
    found = compare(lambda: collect_status(root), lambda: plain_reading(root), "of json_normalize", rounds=3, most=1)
    assert sum(found.counts().values()) == len(plain_reading(root))


def test_report_on_a_thousand_results(benchmark: BenchmarkFixture, folder: Callable[[int], Path]) -> None:
    root = folder(1_000)
    assert benchmark(lambda: run(root, None, [], False, Console(file=io.StringIO())))


def test_tables_of_fifty_thousand_rows(benchmark: BenchmarkFixture, tmp_path: Path, measuring: bool) -> None:
    """All tables and texts of 10,000 points with five seeds each; without measuring, of 100 points."""
    panels, generator = (100, np.random.default_rng(0)) if measuring else (1, np.random.default_rng(0))
    names = ("erk", "snip", "grasp", "synflow", "prospr", "random", "uniform", "magnitude", "force", "px")
    rows = [
        f"{method},data{panel // 10},net{panel % 10},{0.5 + 0.045 * step:.3f},{seed},{generator.uniform(0.5, 0.6):.4f}"
        for method in names
        for panel in range(panels)
        for step in range(10)
        for seed in range(5)
    ]
    table = tmp_path / "table.csv"
    table.write_text("method,dataset,model,sparsity,seed,accuracy\n" + "\n".join(rows) + "\n", encoding="utf-8")

    seconds = []

    def make() -> ReportTables:
        started = time.process_time()
        collection = collect(tmp_path / "none", [table])
        made = report_tables(collection, summarise(collection))
        seconds.append(time.process_time() - started)
        return made

    made = benchmark.pedantic(make, rounds=3 if measuring else 1)
    benchmark.extra_info["processor seconds"] = round(min(seconds), 2)
    assert len(made.compared) == 9 * panels
    # Other processes on the machine lengthen the processor time of some rounds.
    assert not measuring or min(seconds) < 3, f"{min(seconds):.1f} processor seconds"


def test_a_figure_of_two_hundred_panels(benchmark: BenchmarkFixture, tmp_path: Path, measuring: bool) -> None:
    """Draw and save PDF, PNG and captions of pages of 24 panels with five methods; without measuring, of 2 panels."""
    panels, generator = 200 if measuring else 2, np.random.default_rng(0)
    rows = [
        f"{method},data{panel // 4},net{panel % 4},{0 if method == 'dense' else 1 - 0.5**step},{seed},"
        f"{0.9 - 0.03 * step + generator.uniform(0, 0.02):.4f}"
        for method in ("dense", "erk", "snip", "grasp", "synflow", "prospr")
        for panel in range(panels)
        for step in ((0,) if method == "dense" else range(1, 11))
        for seed in range(3)
    ]
    table = tmp_path / "table.csv"
    table.write_text("method,dataset,model,sparsity,seed,accuracy\n" + "\n".join(rows) + "\n", encoding="utf-8")
    collection = collect(tmp_path / "none", [table])
    material = Material(collection.rows, summarise(collection), Options(figures=("accuracy",)))

    def make() -> list[Path]:
        return figures.save_all(figures.draw(material), material.options, tmp_path)

    started = time.process_time()
    paths = benchmark.pedantic(make, rounds=1)
    seconds = time.process_time() - started
    benchmark.extra_info["processor seconds"] = round(seconds, 1)
    assert sum(path.suffix == ".pdf" for path in paths) == -(-panels // 24)
    assert not measuring or seconds < 30, f"{seconds:.1f} processor seconds"
