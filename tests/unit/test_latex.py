"""Compilation of a report's LaTeX by pdflatex, at the widths of a NeurIPS page and of an ICML column.

Needs Debian's texlive-latex-base, texlive-latex-extra and texlive-fonts-recommended, which .ci/run installs.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from pai_bench.analysis import bibliography, figures, published, published_table
from pai_bench.analysis.collect import Collection, collect
from pai_bench.analysis.figures import Material, Options, captions
from pai_bench.analysis.latex import Page
from pai_bench.analysis.report_tables import Choices, report_tables
from pai_bench.analysis.statistics import summarise
from pai_bench.reproductions import output, schema
from pai_bench.reproductions.judge import budgets, judge
from tests.unit.test_analysis import put, with_controls

WIDTHS = {"neurips": 397.48, "icml": 234.88}
HOSTILE = (
    "☃",
    "β",
    "日本",
    "_",
    "%",
    "#",
    "$x$",
    "<b>",
    "|",
    "a\\b",
    "{",
    "~^&",
    "Щука",
    "[12] x",
    "*",
    "ﬁ",
    '"quoted"',
)
DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage{booktabs,graphicx}
\usepackage{times}
\textheight=650pt
\showboxdepth=1
\begin{document}
"""
FIGURES = ("accuracy", "difference-to-dense", "controls", "failures", "baseline")
NAMES = ("table", "table_across", "comparison", "controls", "predictors", "methods")
SOME = ("table_across", "controls", "predictors")
"""Files that not every report has."""


def texts(collection: Collection, summary: pd.DataFrame, baseline: str, width: float) -> dict[str, str]:
    return report_tables(collection, summary, Choices(baseline, page=Page(width))).files


def digits(folder: Path) -> Path:
    """Write results with controls, a collapsed and a missing run."""
    for seed in range(4):
        put(folder, "dense", 0.0, seed, accuracy=0.97)
        put(folder, "snip", 0.9, seed)
        for sparsity in (0.9, 0.95, 0.98, 0.99):
            put(folder, "erk", sparsity, seed, accuracy=0.8 + seed / 100)
            put(folder, "prospr:lr=0.5,momentum=0.9,steps=10", sparsity, seed, accuracy=0.81 + seed / 90)
        for place, method in enumerate(("random", "magnitude", "grasp")):
            put(folder, method, 0.9, seed, accuracy=0.6 + place / 10, effective_sparsity=0.95 - place / 100)
    with_controls(folder)
    put(folder, "erk", 0.9, 0, status="collapsed", accuracy=0.1)
    return folder


def synflow(folder: Path) -> Path:
    """Write three runs for every published point of Synaptic-Flow's Figure 6, with its mean and deviation."""
    rows = published.load(("exact", "near", "context"), suspect=True)
    rows = rows[(rows["paper"] == "tanaka2020") & (rows["n"] == 3) & (rows["epoch"] == "best-test")]
    lines = ["method,dataset,model,sparsity,seed,accuracy,epoch,suspect"]
    for row in rows.itertuples():
        method = row.method_published.lower() if row.sparsity == 0 else row.method or row.method_published.lower()
        lines += [
            f'"{method}",{row.dataset},{row.model_published},{row.sparsity},{seed},'
            f'{min(max(row.accuracy + sign * row.std, 0), 1):.6f},best-test,"{row.suspect}"'
            for seed, sign in enumerate((-1, 0, 1))
        ]
    (folder / "synflow.csv").write_text("\n".join(dict.fromkeys(lines)) + "\n", encoding="utf-8")
    return folder / "synflow.csv"


def hostile(folder: Path) -> Path:
    """Write a table whose names, notes and file name have characters that TeX interprets or cannot set."""
    lines = ["method,dataset,model,sparsity,seed,accuracy,recipe,note"]
    long = "a-very-long-method-name_with_many_parts:alpha=0.5,beta=averyverylongvaluewithoutanybreak"
    for name in (*HOSTILE, long, "erk"):
        quoted = name.replace('"', '""')
        for sparsity in (0.5, 0.9):
            cell = f'"{quoted}","{HOSTILE[5]}%_","{HOSTILE[0]}&{HOSTILE[2]}",{sparsity}'
            recipe = '"frankle+train.epochs=20+train.weight_decay=0.0005"'
            lines += [f'{cell},{seed},0.{5 + seed},{recipe},"{quoted}"' for seed in range(2)]
    place = folder / "böse_100%#&.csv"
    place.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return place


def reproduced(name: str) -> str:
    """Return the table of a reproduction of which every run is finished."""
    reproduction = schema.load(name)
    keys = ("dataset", "model", "method", "sparsity", "recipe")
    rows = [
        {**{key: getattr(entry, key) for key in keys}, "seed": seed, "accuracy": 0.95 + seed / 1000, "n_kept": 1000.0}
        for entry in reproduction.entries
        for seed in range(entry.planned)
    ]
    found = pd.DataFrame(rows, columns=[*keys, "seed", "accuracy", "n_kept"])
    return output.latex(reproduction, judge(reproduction, found), budgets(reproduction, found))


def beside_published(width: float) -> str:
    """Return the table of last epochs of VGG-16-BN beside published numbers of the best epoch, with long notes."""
    rows = published.load(recipe="synflow", dataset="cifar100", model="vgg16-bn")
    ours, theirs = (
        rows[rows["epoch"] == "last"],
        rows[rows["epoch"] == "best-test"].drop_duplicates(["method", "sparsity"]),
    )
    both = ours.drop_duplicates(["method", "sparsity"]).merge(
        theirs, on=["method", "sparsity"], suffixes=("", "_published")
    )
    table = both[["dataset", "model", "recipe", "method", "epoch", "paper", "n"]].assign(
        density=1 - both["sparsity"], ours=100 * both["accuracy"], published=100 * both["accuracy_published"],
        n_published=3.0, difference=100 * (both["accuracy"] - both["accuracy_published"]), half_width=0.51,
        differs=[f"{text}; {HOSTILE[5]}_{'x' * 40}" for text in both["differs_published"]],
    )  # fmt: skip
    return published_table.latex(table, Page(width))


def figure_captions(collection: Collection, summary: pd.DataFrame, options: Options, folder: Path) -> str:
    """Return captions.tex of the figures of a report, with an empty picture for each page."""
    drawings = figures.draw(Material(collection.rows, summary, options)).drawings
    empty = io.BytesIO()
    Figure(figsize=(1, 1)).savefig(empty, format="pdf")
    for stem in (stem for drawing in drawings for stem in drawing.stems()):
        (folder / f"{stem}.pdf").write_bytes(empty.getvalue())
    return captions.latex(drawings, options.inches)


def bibliography_of_all(folder: Path) -> str:
    """Set the whole bibliography with BibTeX, and return the file with the result; BibTeX warns of a missing field."""
    (folder / "papers.bib").write_text("\n\n".join(bibliography.entries().values()), encoding="utf-8")
    (folder / "papers.aux").write_text("\\citation{*}\n\\bibstyle{plain}\n\\bibdata{papers}\n", encoding="utf-8")
    done = subprocess.run(["bibtex", "papers"], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Warning" not in done.stdout, done.stdout
    return "papers.bbl"


def compiled(folder: Path, text: str) -> str:
    """Compile a document and return its log, with lines joined."""
    assert shutil.which("pdflatex"), (
        "pdflatex is missing; install texlive-latex-base texlive-latex-extra texlive-fonts-recommended"
    )
    (folder / "document.tex").write_text(text, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "document.tex"]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "max_print_line": "10000", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=300, check=False)
    log = (folder / "document.log").read_text(encoding="utf-8", errors="replace")
    assert done.returncode == 0, "\n".join(line for line in log.splitlines() if line.startswith(("!", "l.")))[:2000]
    return log


@pytest.mark.slow
def test_every_table_compiles_without_overfull_boxes(tmp_path: Path) -> None:
    """One run of pdflatex for all inputs and widths, because a run takes seconds."""
    inputs = {
        "digits": (digits(tmp_path / "digits"), [], "erk"),
        "synflow": (tmp_path / "none", [synflow(tmp_path)], "snip:bn=eval"),
        "hostile": (tmp_path / "none", [hostile(tmp_path)], "erk"),
    }
    body, expected, done = [], 0, set()
    for name, (root, source, baseline) in inputs.items():
        collection = collect(root, source)
        summary = summarise(collection)
        for venue, width in WIDTHS.items():
            files = texts(collection, summary, baseline, width)
            assert {f"{stem}.tex" for stem in NAMES if stem not in SOME} <= set(files)
            options = Options(venue, "full" if venue == "neurips" else "column", baseline=baseline, figures=FIGURES)
            if name != "synflow":
                files["captions.tex"] = figure_captions(collection, summary, options, tmp_path)
            if name == "digits":
                files["published.tex"] = beside_published(width)
            body.append(rf"\clearpage\textwidth={width}pt\columnwidth=\textwidth\hsize=\textwidth\linewidth=\textwidth")
            for stem in (*NAMES, "numbers", "captions", "published"):
                if f"{stem}.tex" in files:
                    done.add(stem)
                    (tmp_path / f"{name}-{venue}-{stem}.tex").write_text(files[f"{stem}.tex"], encoding="utf-8")
                    body.append(rf"\typeout{{now {name}-{venue}-{stem}}}\input{{{name}-{venue}-{stem}}}\clearpage")
                    expected += files[f"{stem}.tex"].count(r"\begin{tabular}")
    body.append(rf"\clearpage\textwidth={WIDTHS['neurips']}pt\columnwidth=\textwidth\hsize=\textwidth")
    for name in schema.names():
        (tmp_path / f"{name}.tex").write_text(reproduced(name), encoding="utf-8")
        body.append(rf"\linewidth=\textwidth\typeout{{now {name}}}\input{{{name}}}\clearpage")
    references = bibliography_of_all(tmp_path)
    body += [rf"\typeout{{now references}}\sloppy\input{{{references}}}\fussy\clearpage"]
    body.append(r"\paibench{erk}{digits}{conv8}{0.95}{pm} \paibench{erk}{--_}{----}{0.5}{mean}")
    log = compiled(tmp_path, DOCUMENT + "\n".join(body) + "\n\\end{document}\n")
    place, found = "", []
    for line in log.splitlines():
        if match := re.search(r"now (\S+?)\)*$", line):
            place = match[1]
        if re.match(r"Overfull|LaTeX Warning: Float too large", line):
            found.append(f"{place}: {line}")
    assert not found, found[:10]
    assert expected > 30 and done >= {*NAMES, "numbers", "captions", "published"} - {"predictors"}


@pytest.mark.slow
def test_an_unknown_number_is_an_error_in_tex(tmp_path: Path) -> None:
    put(tmp_path / "digits")
    collection = collect(tmp_path / "digits")
    numbers = texts(collection, summarise(collection), "erk", 397.48)["numbers.tex"]
    text = DOCUMENT + numbers + r"\paibench{snip}{digits}{conv8}{0.9}{means}" + "\n\\end{document}\n"
    with pytest.raises(AssertionError, match=re.escape("no number has the key /snip/digits/conv8/0.9/means")):
        compiled(tmp_path, text)
