"""Command `pai-bench report`: write figures and tables for a results folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from pai_bench import results
from pai_bench.analysis import check, figures, html, published, published_table, records, reference, speed, tables
from pai_bench.analysis.bibliography import with_papers
from pai_bench.analysis.collect import OURS, Collection, collect
from pai_bench.analysis.columns import POINT
from pai_bench.analysis.figures import Figures, Material, Options, pooling
from pai_bench.analysis.figures.text import unshaped
from pai_bench.analysis.inference import MARGIN
from pai_bench.analysis.latex import Page
from pai_bench.analysis.published.tables import read as read_published
from pai_bench.analysis.report_tables import OPTIONAL, Choices, ReportTables, report_tables
from pai_bench.analysis.selection import Selection, check_methods
from pai_bench.analysis.statistics import summarise
from pai_bench.core.atomic import check_writable
from pai_bench.results import float64, surplus, ties


def run(
    root: Path | None,
    out: Path | None,
    extra: Sequence[Path],
    as_json: bool,
    messages: Console,
    options: Options | None = None,
    selection: Selection | None = None,
    with_reference: bool = False,
    margin: float = MARGIN,
) -> bool:
    """Write figures and tables, print their paths to stdout, and return True if every planned cell has a result.

    `with_reference` adds the released results of the settings (data set, model and recipe) of the other results.

    Raises: PaiBenchError when there are no results, or the report cannot be written.
    """
    resolved = results.resolve_root(root)
    collected = collect(resolved, extra, reference.tables() if with_reference else ())
    collection = (selection or Selection()).apply(reference.beside(collected) if with_reference else collected)
    options = options or Options()
    check_methods(options.highlight, collection.rows["method"])
    summary = summarise(collection)
    folder = out or resolved / "report"
    check_writable(folder, "--out")
    complete = len(collection.missing) == 0
    measured, damaged = speed.read(resolved, collection.rows)
    shown, unified = _published(options, collection.rows)
    material = Material(collection.rows, summary, options, shown, speeds=measured)
    beside = published_table.compare(material)
    more = [*_aggregates(material), *published_table.described(beside)]
    texts = report_tables(collection, summary, _choices(options, margin), more)
    names = {name for column in ("method", "dataset", "model", "recipe") for name in collection.rows[column].unique()}
    said = [line for line in (published_table.absence(material), unshaped(names)) if line]
    remarks = (*texts.remarks, *unified, *said, *damaged)
    texts = speed.with_table(replace(texts, remarks=remarks), measured, _page_of(options))
    files = write(collection, material, texts, beside, folder, resolved)
    for line in [*status_lines(collection), *(f"  {remark}" for remark in texts.remarks)]:
        messages.print(line, highlight=False, markup=False)
    if as_json:
        points, missing = _records(tables.csv(summary)), _records(collection.missing)
        content = {
            "complete": complete,
            "files": [str(path) for path in files],
            "points": points,
            "missing": missing,
            "stale": collection.stale,
            "damaged": collection.damaged,
            "unreadable": collection.unreadable,
        }
        print(json.dumps(content, indent=1))
    else:
        for path in files:
            print(path)
    return complete


def check_results(
    root: Path | None, extra: Sequence[Path], selection: Selection, as_json: bool, margin: float = MARGIN
) -> bool:
    """Print the objections that a careful reviewer would raise; return True if there is none.

    Raises: PaiBenchError when there are no results.
    """
    return check.run(selection.apply(collect(results.resolve_root(root), extra)), as_json, margin)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Convert rows to dicts with full precision, which `to_json` would round; None for missing values."""
    return [
        {
            str(column): value if isinstance(value, tuple) or not pd.isna(value) else None
            for column, value in row.items()
        }
        for row in table.to_dict(orient="records")
    ]


_REMEDIES = {
    "failed": "pai-bench sweep --retry failed runs them again",
    "unreadable": "correct their permissions or the disk and repeat the report; a sweep would not run them again",
    "missing": "not finished yet",
}


def status_lines(collection: Collection) -> list[str]:
    """Summarise valid, missing, stale and damaged results in a few lines."""
    n_missing = len(collection.missing)
    count = len(collection.rows)
    lines = [f"{count} result{'s' * (count != 1)}"]
    lines[0] += f", {n_missing} planned cell{'s' * (n_missing != 1)} without one" if n_missing else ""
    for state, count in Counter(collection.missing["state"]).items():
        lines.append(f"  {count} {state}: {_REMEDIES[state]}")
    flagged = Counter(collection.rows["status"])
    for status in ("collapsed", "diverged"):
        if flagged[status]:
            lines.append(f"  {flagged[status]} {status}: counted, and marked in figure and table")
    if collection.left_out:
        rows = "row of tables has" if collection.left_out == 1 else "rows of tables have"
        lines.append(f"  {collection.left_out} {rows} no accuracy; not counted")
    lines += [f"  {remark}" for remark in collection.remarks]
    if collection.stale:
        lines.append(f"  {len(collection.stale)} stale: made with other settings or by another version; not counted")
    lines += [f"  {cause}; not counted" for cause in (*collection.damaged, *collection.unreadable)]
    ours = collection.rows[collection.rows["source"] == OURS]
    records = collection.rows.to_dict("records")
    lines += [f"  {line}" for line in (ties.line(records), surplus.line(records)) if line]
    if len(ours):
        said = (float64.overlap_line(ours["float64_overlap"].dropna()), float64.advice(ours.to_dict("records")))
        lines += [f"  {line}" for line in said if line]
    return lines


def _aggregates(material: Material) -> list[str]:
    if "summary" not in figures.chosen(material.options.figures):
        return []
    return pooling.described(material)


def _choices(options: Options, margin: float) -> Choices:
    return Choices(options.baseline, margin, _page_of(options))


def _page_of(options: Options) -> Page:
    """Return the space for tables. In a two-column venue, tables of full width span both columns (table*)."""
    two_columns = options.page.column * 2 < options.page.full and options.page.full > 6
    return Page(options.inches * 72.27, star=two_columns and options.width == "full")


def write(
    collection: Collection,
    material: Material,
    texts: ReportTables,
    beside: pd.DataFrame,
    folder: Path,
    root: Path,
) -> list[Path]:
    """Write all files of the report to `folder` and return their paths, report.md first.

    beside: own and published results, as `published_table.compare` returns them.
    root: the results folder, for the causes of failures.
    """
    options = material.options
    _remove_old(folder)
    drawn = figures.draw(material)
    figure = figures.save_all(drawn, options, folder)
    files = {
        "report.md": _page(collection, texts, drawn),
        "report.html": _html(root, collection, material.summary, texts, drawn),
        **texts.files,
        "results.csv": collection.rows.drop(columns="path", errors="ignore").to_csv(index=False),
    }
    if len(beside):
        files |= {
            "published.csv": beside.to_csv(index=False),
            "published.md": published_table.markdown(beside),
            "published.tex": published_table.latex(beside, _page_of(options)),
            "references.bib": with_papers(files["references.bib"], beside["paper"]),
        }
        files["report.md"] += f"\n## Published numbers\n\n{files['published.md']}"
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / "report.md", *figure, *(folder / name for name in files if name != "report.md")]


def _html(root: Path, collection: Collection, summary: pd.DataFrame, texts: ReportTables, drawn: Figures) -> str:
    known = records.read(collection.rows)
    objections = check.find(collection, summary, texts.controls, known.dirty())
    lines = [*status_lines(collection), *texts.remarks]
    return html.render(html.Content(root, collection, summary, texts, drawn, known, objections, lines))


def _remove_old(folder: Path) -> None:
    """Remove the figures and tables of an earlier report that this one may not have."""
    if not (folder / "report.md").exists():  # without an earlier report, such files belong to the user
        return
    for name in (*figures.DEFAULT, *figures.ON_REQUEST):
        for ending in (".pdf", ".png", "-points.csv", "-[0-9]*.pdf", "-[0-9]*.png"):
            for old in folder.glob(f"{name}{ending}"):
                old.unlink(missing_ok=True)
    for stem in ("published", *OPTIONAL):
        for ending in ("md", "tex", "csv"):
            (folder / f"{stem}.{ending}").unlink(missing_ok=True)


def _published(options: Options, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the published numbers that the options allow for these results, and remarks on a table of the user."""
    if options.published == "none":
        return pd.DataFrame(), []
    if options.published not in published.LEVELS:
        table, remarks = read_published(Path(options.published), rows)
        return table if options.suspect else table[table["suspect"] == ""].reset_index(drop=True), remarks
    levels = published.LEVELS[: published.LEVELS.index(options.published) + 1]
    return published.load(levels, suspect=options.suspect), []


def _page(collection: Collection, texts: ReportTables, drawn: Figures) -> str:
    parts = ["# Report"]
    for drawing in drawn.drawings:
        images = [f"![{drawing.title}]({stem}.png)" for stem in drawing.stems()]
        parts += [f"## {drawing.title}", *images, drawing.caption]
    if drawn.absent:
        lines = [f"- {name}: {reason}" for name, reason in drawn.absent]
        parts += ["## Figures that are not drawn", "\n".join(lines)]
    parts += [f"## {heading}\n\n{text}" for heading, text in texts.parts.items()]
    lines = [*status_lines(collection), *texts.remarks]
    parts.append("## Status\n\n" + "\n".join(f"- {line.strip()}" for line in lines))
    if len(collection.missing):
        counted = collection.missing.groupby([*POINT[1:], "state"], sort=False)["seed"].apply(list)
        rows = [
            f"- {tables.panel_title(dataset, model, recipe)}: {method} at {tables.per_cent(sparsity)} %,"
            f" seeds {', '.join(map(str, sorted(seeds)))} ({state})"
            for (method, dataset, model, recipe, sparsity, state), seeds in counted.items()
        ]
        parts.append("## Missing\n\n" + "\n".join(rows))
    if collection.stale:
        parts.append("## Stale\n\n" + "\n".join(f"- {path}" for path in collection.stale))
    return "\n\n".join(parts) + "\n"
