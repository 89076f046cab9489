"""Tests of the HTML page: one file without external parts, unique ids, and the numbers of the CSV files."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from rich.console import Console

from pai_bench import results
from pai_bench.analysis import check, figures, html
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.columns import CELL
from pai_bench.analysis.command import run
from pai_bench.analysis.comparison import Paired, pool
from pai_bench.analysis.difference_tables import p_text
from pai_bench.analysis.figures import Drawing, Material, Options
from pai_bench.analysis.html import comparisons, svg
from pai_bench.analysis.html.sections import runs
from pai_bench.analysis.labels import decimals, per_cent
from pai_bench.analysis.records import Environment, Records, Settings
from pai_bench.analysis.report_tables import report_tables
from pai_bench.analysis.series import Series
from pai_bench.analysis.statistics import compare_controls, summarise
from pai_bench.analysis.unify import unify
from tests.unit.test_analysis import cell, plan, put
from tests.unit.test_check import SEEDS, sound

ADDRESSES = (
    "src",
    "href",
    "xlink:href",
    "action",
    "formaction",
    "data",
    "poster",
    "srcset",
    "cite",
    "background",
    "ping",
)
PROVENANCE = {
    "commit": "c" * 40,
    "dirty_diff_hash": None,
    "versions": {"python": "3.12", "torch": "2.14"},
    "host": "node1",
}
EVIL = '<script>alert("x")</script>&'


@dataclass
class Page(HTMLParser):
    """A parsed page: its elements, and the cells of its tables by id of the section."""

    tags: Counter[str] = field(default_factory=Counter)
    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    tables: dict[str, list[list[str]]] = field(default_factory=dict)
    styles: list[str] = field(default_factory=list)
    text: str = ""
    section: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
                if tag == "section":
                    self.section = value or ""
            elif name in ADDRESSES:
                self.links.append(value or "")
            elif name == "style":
                self.styles.append(value or "")
        if tag == "tr":
            self.tables.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.tables[self.section][-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        rows = self.tables.get(self.section)
        if rows and rows[-1] and self.get_starttag_text() != "<tbody>":
            rows[-1][-1] += data.strip("\n")

    def rows(self, section: str) -> list[dict[str, str]]:
        head, *rows = self.tables[section]
        return [dict(zip(head, row, strict=True)) for row in rows]


def parse(text: str) -> Page:
    page = Page()
    page.feed(text)
    page.close()
    return page


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with a control, a failed, a missing and a collapsed run, and a table with markup in its names."""
    root = tmp_path_factory.mktemp("results")
    for seed in range(3):
        put(root, "dense", 0.0, seed, provenance=PROVENANCE)
        for sparsity in (0.9, 0.98):
            for method in ("snip", "erk", "snip:control=shuffle"):
                put(root, method, sparsity, seed, provenance=PROVENANCE, accuracy=0.9 - sparsity / 7 - seed / 113)
    put(root, "erk", 0.98, 1, provenance=PROVENANCE, status="collapsed", accuracy=None)
    plan(root, "1", [cell("snip", seed=seed) for seed in range(3)] + [cell("force"), cell("force", seed=1)])
    key = results.ResultKey(cell("force"), "quick", "0123456789abcdef")
    results.write_failure(root, key, cause=f"out of memory {EVIL}", traceback="")
    table = root / "mine.csv"
    lines = [f'"{EVIL.replace(chr(34), chr(34) * 2)}",digits,conv8,0.9,{seed},0.5,quick' for seed in range(3)]
    table.write_text("\n".join(["method,dataset,model,sparsity,seed,accuracy,recipe", *lines]))
    run(root, None, [table], False, Console(file=io.StringIO()), Options(figures=("accuracy",)))
    return root / "report"


@pytest.fixture(scope="module")
def text(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return parse(text)


@pytest.mark.slow
def test_the_page_loads_nothing_from_elsewhere(text: str, page: Page) -> None:
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", text.replace("// ", ""))
    assert all(link.startswith("#") for link in page.links)
    assert not {"link", "img", "iframe", "object", "embed", "base", "source"} & set(page.tags)
    assert page.tags["script"] == 1 and page.tags["svg"] == 1 and "<metadata" not in text


@pytest.mark.slow
def test_ids_are_unique_and_all_links_lead_somewhere(text: str, page: Page) -> None:
    assert page.ids and not [name for name, count in Counter(page.ids).items() if count > 1]
    targets = {link[1:] for link in page.links} | set(re.findall(r"url\(#([^)]+)\)", text))
    targets |= set(re.findall(r' for="([^"]+)"', text))
    assert targets <= set(page.ids)


def test_names_are_escaped(page: Page, text: str) -> None:
    assert EVIL not in text and EVIL in page.text
    assert any(row["Method"] == EVIL for row in page.rows("points"))
    assert any(row["Cause"] == f"out of memory {EVIL}" and row["Seeds"] == "0" for row in page.rows("failures"))


def shown(value: Any, digits: int, scale: float = 1.0, sign: str = "") -> str:
    return "–" if pd.isna(value) else f"{round(scale * value, digits) + 0.0:{sign}.{digits}f}"


def test_points_equal_the_csv(folder: Path, page: Page) -> None:
    table, rows = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values=[""]), page.rows("points")
    assert len(table) == len(rows) > 8
    for (_, point), row in zip(table.iterrows(), rows, strict=True):
        assert row["Method"] == point["method"] and row["Sparsity (%)"] == per_cent(point["sparsity"])
        assert row["n"] == str(point["n"]) and row["Missing"] == str(point["planned"] - point["runs"])
        found = {"mean": "Mean (%)", "std": "Std", "low": "Lowest (%)", "high": "Highest (%)"}
        assert {name: row[title] for name, title in found.items()} == {
            name: shown(point[name], 2, 100) for name in found
        }
        assert row["Collapsed"] == str(point["collapsed"])


@pytest.mark.slow
def test_panels_equal_the_csv(folder: Path, page: Page) -> None:
    table = pd.read_csv(folder / "table.csv", keep_default_na=False, na_values=[""])
    table = table[table["method"] != "dense"]
    head, *rows = page.tables["accuracy"]
    assert head == ["Sparsity (%)", "90", "98"] and len(rows) == table["method"].nunique() == 5
    names = table["method"].drop_duplicates().tolist()
    for name, (_, *cells) in zip(names, rows, strict=True):
        for level, text in zip((0.9, 0.98), cells, strict=True):
            point = table[(table["method"] == name) & (table["sparsity"] == level)].to_dict("records")
            known = bool(point) and not pd.isna(point[0]["mean"])
            number, *more = text.split(" ")
            assert number == (f"{100 * point[0]['mean']:.{decimals(point[0]['std'])}f}" if known else "–")
            if known and not pd.isna(point[0]["std"]):
                assert more[:2] == ["±", f"{100 * point[0]['std']:.{decimals(point[0]['std'])}f}"]


def test_comparisons_equal_the_csv(folder: Path, page: Page) -> None:
    table, rows = pd.read_csv(folder / "comparison.csv", keep_default_na=False, na_values=[""]), page.rows("comparison")
    assert len(table) == len(rows) == 1
    for (_, one), row in zip(table.iterrows(), rows, strict=True):
        assert (row["Method"], row["n"], row["Seeds needed"]) == (
            one["method"],
            str(one["n"]),
            str(one["seeds_needed"]),
        )
        for name, title in (("difference", "Difference"), ("low", "Low"), ("high", "High")):
            assert row[title] == shown(one[name], 2, 100, "+")
        assert row["p"] == row["p (Holm)"] == "–" and float(row["Smallest p"]) == one["p_smallest"] >= 0.05


@pytest.mark.parametrize("settings", [2, 9])
def test_pooled_comparisons_equal_the_csv(settings: int) -> None:
    generator = np.random.default_rng(settings)
    found = pool(
        Paired(Series("", method, "cifar10", f"net{i}", "frankle"), "last", Series("", "erk", "cifar10", f"net{i}", ""),
               (0, 1, 2), (0.9,), generator.normal(0.01, 0.002, 3), (), int(i == 0), 6)
        for method in ("snip", "grasp") for i in range(settings)
    )  # fmt: skip
    table = comparisons.pooled(found)
    titles = [column.title for column in table.columns]
    for one, cells in zip(found.to_dict("records"), table.rows, strict=True):
        row = dict(zip(titles, cells, strict=True))
        assert (row["Method"], row["Settings"], row["Failed runs"]) == (one["method"], str(settings), "1")
        for name, title in (("difference", "Difference"), ("low", "Low"), ("high", "High")):
            assert row[title] == shown(one[name], 2, 100, "+")
        # Six differences of two settings, and two settings, cannot have an adjusted p below 0.05.
        for name, title in (("p", "p"), ("p_holm", "p (Holm)"), ("p_settings", "p, new")):
            assert row[title] == (p_text(one[name]) if settings == 9 else "–")
        assert row["Smallest p"] == p_text(one["p_smallest"])


def test_the_methods_paragraph_is_on_the_page(folder: Path, page: Page) -> None:
    assert " ".join((folder / "methods.md").read_text(encoding="utf-8").split()) in " ".join(page.text.split())


def test_runs_equal_the_csv(folder: Path, page: Page) -> None:
    table, rows = pd.read_csv(folder / "results.csv", keep_default_na=False, na_values=[""]), page.rows("runs")
    assert len(table) == len(rows) > 20
    for (_, one), row in zip(table.iterrows(), rows, strict=True):
        assert row["Method"] == one["method"] and row["Seed"] == str(one["seed"])
        assert row["Sparsity (%)"] == per_cent(one["sparsity"]) and row["Status"] == one["status"]
        assert row["Accuracy (%)"] == shown(one["accuracy"], 2, 100)
        assert row["Effective sparsity (%)"] == shown(one["effective_sparsity"], 3, 100)
        assert row["Kept weights"] == shown(one["n_kept"], 0)
        assert row["Scoring (s)"] == shown(one["score_seconds"], 2)
        assert row["Masks"] == ("" if pd.isna(one["mask_hash"]) else one["mask_hash"][:8])


def test_controls_equal_the_csv(folder: Path, page: Page) -> None:
    table, rows = pd.read_csv(folder / "controls.csv"), page.rows("controls")
    assert len(table) == len(rows) == 2
    for (_, one), row in zip(table.iterrows(), rows, strict=True):
        assert (row["Method"], row["Control"], row["n"]) == (one["method"], one["control"], str(one["n"]))
        for name, title in (("difference", "Difference"), ("low", "Low"), ("high", "High")):
            assert row[title] == shown(one[name], 2, 100, "+")


def test_every_run_leads_to_its_settings_and_environment(folder: Path, page: Page) -> None:
    settings = {row["No."]: row for row in page.rows("settings")}
    ours = [row for row in page.rows("runs") if row["Source"] == ""]
    assert ours and all(settings[row["Settings"]]["Method"] == row["Method"] for row in ours)
    assert all(row["Environment"] == "1" for row in ours)
    assert "commit cccccccccccc" in page.text and "python 3.12, torch 2.14" in page.text and "train.lr" in page.text


def test_objections_failures_and_costs_are_on_the_page(page: Page) -> None:
    assert "one-dataset" in page.text and "Remedy: " in page.text
    states = {(row["Method"], row["State"]): row["Seeds"] for row in page.rows("failures")}
    assert states[("erk", "collapsed")] == "1" and states[("force", "missing")] == "1"
    costs = {row["Method"]: row for row in page.rows("cost")}
    assert costs["snip"]["Runs"] == "6" and costs["snip"]["Scoring, median (s)"] == "0.50"


@pytest.mark.slow
def test_equal_figures_give_equal_markup_with_ids_of_their_own() -> None:
    figure = Figure((2, 1))
    ax = figure.add_subplot()
    for y in (0, 1):  # artists may share a name
        ax.plot([0, 1], [y, y], "o", gid="same")
    first, second = (Drawing(name, "A <title>", (figure,), "", pd.DataFrame()) for name in ("one", "two"))
    assert svg.pages(first) == svg.pages(first)
    ids = [name for drawing in (first, second) for name in re.findall(r' id="([^"]+)"', svg.pages(drawing)[0])]
    assert len(ids) == len(set(ids)) > 4
    (text,) = svg.pages(first)
    assert text.startswith("<svg ") and "xmlns" not in text and 'aria-label="A &lt;title&gt;"' in text


def more_seeds(rows: pd.DataFrame, times: int) -> pd.DataFrame:
    """The rows several times, with other seeds and paths."""
    parts = [rows.assign(seed=rows["seed"] + SEEDS * i, path=rows["path"] + f"-{i}") for i in range(times)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.slow
def test_ten_thousand_runs_take_less_than_three_megabytes() -> None:
    """Figures take a few hundred kilobytes more; the limit of the whole page is 5 MB."""
    rows = more_seeds(sound(), 79)
    rows = rows.assign(mask_hash="0123456789abcdef", source="")
    rows = rows.assign(score_seconds=12.3456, train_seconds=1234.56, finished_at="2026-01-01T00:00:00+00:00")
    rows = rows.assign(effective_sparsity=rows["sparsity"])
    records = Records((), (), {path: (index % 40, index % 9) for index, path in enumerate(rows["path"])})
    body = runs(rows, records).body
    assert body.count("<tr>") == len(rows) > 10_000
    assert len(body.encode()) < 3e6


def render_many() -> str:
    """A page with several hundred runs in four panels, some without kept counts, and recipes."""
    rows = more_seeds(sound(), 2)
    table = rows.head(3).assign(source="paper", method="mine", sparsity=0.9, n_kept=float("nan"), path=None)
    rows = unify(pd.concat([rows, table], ignore_index=True)).rows
    rows = rows.assign(score_seconds=1.5, train_seconds=60.0, device="cpu", effective_sparsity=rows["sparsity"])
    missing = pd.DataFrame(columns=[*CELL, "state"])
    collection = Collection(rows=rows, missing=missing, stale=(), damaged=())
    summary, comparison = summarise(collection), compare_controls(collection)
    drawn = figures.draw(Material(rows, summary, Options(figures=("accuracy",)), pd.DataFrame()))
    settings = Settings("f" * 64, "snip", "frankle", 1, (), json.dumps({"train": {"lr": 0.1}}), "standard", ())
    environment = Environment("c" * 40, "", "s" * 64, (("torch", "2.14"),), "node1", "Linux", "cpu")
    records = Records((settings,), (environment,), dict.fromkeys(rows["path"].dropna(), (0, 0)))
    objections = check.find(collection, summary, comparison, {"runs/1-0": "d" * 64})
    tables = report_tables(collection, summary)
    return html.render(html.Content(Path("nowhere"), collection, summary, tables, drawn, records, objections, []))
