"""Assembly of the HTML page from the parts of a report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup

from pai_bench.analysis.check import Objection
from pai_bench.analysis.collect import Collection
from pai_bench.analysis.display_names import dataset_name, model_name
from pai_bench.analysis.figures import Figures
from pai_bench.analysis.html import comparisons, sections, svg
from pai_bench.analysis.html.grids import Matrix
from pai_bench.analysis.records import Records
from pai_bench.analysis.report_tables import ReportTables
from pai_bench.cells import DENSE

SHOWN = 200
"""Number of rows that a table shows at first."""


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    root: Path
    """The results folder, whose failure records are read."""
    collection: Collection
    points: pd.DataFrame
    """One row per point, from `summarise`."""
    tables: ReportTables
    figures: Figures
    records: Records
    objections: Sequence[Objection]
    status: Sequence[str]
    """Lines about the number and state of the results."""


def render(content: Content) -> str:
    """Return the page: one file that needs no other file and no network."""
    rows = content.collection.rows
    here = files(__package__)
    # Names of methods and notes come from users, hence automatic escaping.
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["inline"] = sections.inline
    texts = content.tables
    compared = [
        comparisons.comparison(texts.compared),
        comparisons.pooled(texts.pooled),
        comparisons.controls(texts.controls),
        sections.points(content.points),
    ]
    tables = [one for one in compared if one.rows]
    failures = sections.failures(content.root, rows, content.collection.missing)
    costs = sections.costs(rows)
    runs = sections.runs(rows, content.records)
    template = environment.from_string((here / "report.html.jinja").read_text(encoding="utf-8"))
    return template.render(
        css=Markup((here / "report.css").read_text(encoding="utf-8")),
        script=Markup((here / "report.js").read_text(encoding="utf-8").replace("SHOWN", str(SHOWN))),
        title=_title(rows),
        facts=_facts(content),
        content=content,
        figures=[(drawing, svg.pages(drawing)) for drawing in content.figures.drawings],
        matrices=[Matrix(f"accuracy-{place}", grid) for place, grid in enumerate(texts.grids, 1)],
        tables=tables,
        speed=[Matrix(f"speed-{place}", grid) for place, grid in enumerate(texts.speed, 1)],
        predictors=[Matrix(f"predictors-{place}", grid) for place, grid in enumerate(texts.predictors, 1)],
        methods=texts.files["methods.md"],
        after=[one for one in (failures if failures.rows else None, costs, runs) if one is not None],
        numeric=[one for one in (*tables, failures, costs, runs) if one is not None],
        shown=SHOWN,
        settings=list(sections.settings(content.records)),
        recipes=list(sections.recipes(content.records)),
        environments=list(sections.environments(content.records)),
    )


def _title(rows: pd.DataFrame) -> str:
    """Name the data sets and networks, or count them where there are many."""
    datasets = [dataset_name(name) for name in dict.fromkeys(rows["dataset"])]
    models = [model_name(name) for name in dict.fromkeys(rows["model"])]
    text = f"{_listed(datasets, 'data sets')} with {_listed(models, 'networks')}"
    # A title that breaks within CIFAR-10 or ResNet-20 is hard to read.
    return text.replace("-", "\N{NON-BREAKING HYPHEN}")


def _listed(names: list[str], noun: str, most: int = 3) -> str:
    if len(names) > most:
        return f"{len(names)} {noun}"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _facts(content: Content) -> list[tuple[str, str]]:
    """Return the numbers at the top of the page with their labels."""
    rows, missing = content.collection.rows, content.collection.missing
    failed = int(((rows["status"] != "ok") | rows["at_chance"]).sum())
    facts = [
        (len(rows), "run", "runs"),
        (rows.loc[rows["method"] != DENSE, "method"].nunique(), "method", "methods"),
        (rows.loc[rows["sparsity"] > 0, "sparsity"].nunique(), "sparsity", "sparsities"),
        (rows["seed"].nunique(), "seed", "seeds"),
        (failed, "run at chance or failed", "runs at chance or failed"),
        (len(missing), "missing run", "missing runs"),
        (len(content.objections), "objection", "objections"),
    ]
    return [(str(number), one if number == 1 else many) for number, one, many in facts]
