"""Captions: every mark, band and number of a figure in words, as text, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

from pai_bench.analysis.display_names import dataset_name, method_name, model_name
from pai_bench.analysis.figures import overlay
from pai_bench.analysis.figures.arrange import Arrangement
from pai_bench.analysis.figures.curves import Panel, Point, mostly_partial
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.published_curves import described, paper_name
from pai_bench.analysis.information import is_small_dense, is_upper_bound
from pai_bench.analysis.labels import same_networks
from pai_bench.analysis.latex import breakable

_EPOCHS = {"last": "last epoch", "best-test": "best test epoch", "best-val": "best validation epoch"}

_NONE = "n = 0"


def sentences(*parts: str) -> str:
    """Join sentences, each with a capital and a full stop; empty ones are left out."""
    texts = [part.strip().removesuffix(".") for part in parts if part.strip()]
    return " ".join(f"{text[0].upper()}{text[1:]}." for text in texts)


def room(text: str, inches: float, least: float) -> float:
    """Return the height in inches that pages leave for a caption: `least`, or more in a narrow column.

    In the width of the text, 24 panels always share a page.
    """
    if inches > 4:
        return least
    # 10-point Times sets about 16 characters an inch, in lines of 12 points; the caption has a distance to the figure.
    return max(least, 12 / 72 * math.ceil(len(text) / (16 * inches)) + 0.25)


def count(numbers: Iterable[float]) -> str:
    """Return "n = 3" or "n = 2 to 3"."""
    values = sorted({int(n) for n in numbers if n > 0})
    if not values:
        return _NONE
    return f"n = {values[0]}" if len(values) == 1 else f"n = {values[0]} to {values[-1]}"


def curves(material: Material, panels: Sequence[Panel], of: str = "accuracy") -> list[str]:
    """Return the sentences about points, bands, marks, epochs, notes and recipes of panels."""
    # Small multiples repeat the points of all methods in every panel.
    points = list(
        {
            (panel.setting, curve.source, curve.method, point.density): point
            for panel in panels
            for curve in panel.curves
            for point in curve.points
        }.values()
    )
    dense = count(c.points[0].n for panel in panels for c in panel.curves if c.is_dense)
    pruned = count(point.n for panel in panels for c in panel.curves if not c.is_dense for point in c.points)
    numbers = pruned if dense in (pruned, _NONE) else f"{pruned}; dense: {dense}"
    mean = f"mean over seeds ({numbers}; {epochs(material)})"
    band = any(math.isfinite(point.spread) for point in points)
    return [
        f"Points: {mean}" + (f"; bands and bars: ± 1 sample standard deviation of the {of}" if band else ""),
        _dense(panels) if of == "accuracy" else "Dashed line: dense network",
        *_failures(panels, points),
        *_missing(panels, points),
        _upper_bounds(material, panels),
        _smaller(panels),
        *_published(material, panels),
        *notes(material, panels),
        *same_networks(setting.model for setting in material.settings),
        recipes(material),
    ]


def _dense(panels: Sequence[Panel]) -> str:
    dense = any(curve.is_dense and math.isfinite(curve.points[0].mean) for panel in panels for curve in panel.curves)
    return "Dashed line: dense network" if dense else ""


def _upper_bounds(material: Material, panels: Sequence[Panel]) -> str:
    """Name the methods of the panels that see training."""
    summary = material.summary
    if "saw" not in summary:
        return ""
    bounds = set(summary.loc[summary["saw"].map(is_upper_bound), "method"])
    labels = dict.fromkeys(c.label for panel in panels for c in panel.curves if c.method in bounds)
    return f"Masks found during training (upper bounds): {', '.join(labels)}" if labels else ""


def _smaller(panels: Sequence[Panel]) -> str:
    """Describe the dense networks with narrower layers."""
    labels = dict.fromkeys(c.label for panel in panels for c in panel.curves if is_small_dense(c.method))
    return f"{', '.join(labels)}: unpruned networks with narrower layers, as large as the pruned ones" if labels else ""


def _failures(panels: Sequence[Panel], points: Sequence[Point]) -> list[str]:
    if not any(point.failed for point in points):
        return []
    chance = any(math.isfinite(panel.chance) for panel in panels)
    return [
        "×: all or some runs collapsed, diverged or ended at chance (at most 1.5 times the accuracy of guessing); they"
        " count at their accuracy, or at chance where none was recorded, and such a point has no deviation",
        "Dotted line: accuracy of guessing" if chance else "",
    ]


def _missing(panels: Sequence[Panel], points: Sequence[Point]) -> list[str]:
    partial = sum(0 < point.n < point.planned for point in points)
    absent = sum(point.n == 0 and point.planned > 0 for point in points)
    unmarked = partial and mostly_partial(panels)
    return [
        f"Runs are missing at {partial} of {len(points)} points" if unmarked else "",
        "?: results are missing" if absent or (partial and not unmarked) else "",
    ]


def epochs(material: Material) -> str:
    """Return the epoch that the accuracies are of, or that it is not stated."""
    if "epoch" not in material.runs:
        return "epoch not stated" if (material.runs["source"] != "").any() else _EPOCHS["last"]
    found = dict.fromkeys(material.runs["epoch"].fillna(""))
    return ", ".join(_EPOCHS.get(epoch, "epoch not stated") for epoch in found)


def notes(material: Material, panels: Sequence[Panel]) -> list[str]:
    """Return the notes about the series of these panels, each with its mark."""
    return notes_of(material, {(curve.source, curve.method) for panel in panels for curve in panel.curves})


def notes_of(material: Material, shown: Collection[tuple[str, str]]) -> list[str]:
    """Return the notes about these (source, method), each with its mark."""
    texts = dict.fromkeys(text for key, text in material.notes.items() if key in shown)
    return [f"{material.mark_of[text]} {text}" for text in texts]


def recipes(material: Material) -> str:
    """Return the full names of the recipes; titles contain only what distinguishes them."""
    found = [name for name in dict.fromkeys(material.summary["recipe"]) if name]
    return f"Recipe{'s' * (len(found) > 1)}: {', '.join(found)}" if found else ""


def models(arrangement: Arrangement) -> list[str]:
    """Return which models of the data share a name in the figure."""
    return [f"{name} is {' and '.join(found)} in the data" for name, found in arrangement.aliases.items()]


def _published(material: Material, panels: Sequence[Panel]) -> list[str]:
    shown = [curve for panel in panels for curve in panel.published]
    if not shown:
        return []
    where = dict.fromkeys(
        f"{dataset_name(panel.setting.dataset)} with {model_name(panel.setting.model)}"
        for panel in panels
        if panel.published
    )
    by_paper = {
        paper: described(curve for curve in shown if curve.paper == paper)
        for paper in dict.fromkeys(curve.paper for curve in shown)
    }
    papers = "; ".join(f"{paper_name(paper)}: {words}" for paper, words in by_paper.items())
    hollow = "Hollow and half-filled points and dotted lines" if len(by_paper) > 1 else "Hollow points and dotted line"
    left_out = ", ".join(paper_name(paper) for paper in dict.fromkeys(p for panel in panels for p in panel.undrawn))
    suspect = {
        f"{method_name(curve.method)}: {point.suspect}": None
        for curve in shown
        for point in curve.points
        if point.suspect
    }
    halves = [value for panel in panels for value in overlay.differences(panel)["half"]]
    interval = " with 95 % Welch intervals, cut at the ends of the axis" if any(map(math.isfinite, halves)) else ""
    return [
        f"{hollow}: published numbers ({papers}) for {', '.join(where)}",
        f"Not drawn, because the panels would have too many series: the published numbers of {left_out}"
        if left_out
        else "",
        f"Grey-filled points: published numbers that are suspect ({'; '.join(suspect)})" if suspect else "",
        f"Lower panels: ours minus published{interval}; grey: ± 0.5 points",
    ]


def markdown(drawings: Sequence[Drawing], absent: Sequence[tuple[str, str]]) -> str:
    """Return all captions as Markdown, and the reason for each figure that was not drawn."""
    parts = ["# Captions"]
    for drawing in drawings:
        files = ", ".join(f"`{stem}.pdf`" for stem in drawing.stems())
        parts.append(f"## {drawing.title}\n\n{files}\n\n{drawing.caption}")
    if absent:
        parts.append("## Not drawn\n\n" + "\n".join(f"- {name}: {reason}" for name, reason in absent))
    return "\n\n".join(parts) + "\n"


def latex(drawings: Sequence[Drawing], inches: float) -> str:
    """Return one figure environment a page, with caption and label, at the final width."""
    parts = ["% needs \\usepackage{graphicx}; add the folder of the report with \\graphicspath{{report/}}"]
    for drawing in drawings:
        for number, stem in enumerate(drawing.stems()):
            more = f" Page {number + 1} of {len(drawing.pages)}." if len(drawing.pages) > 1 else ""
            parts.append(
                "\n".join(
                    [
                        r"\begin{figure}",
                        # \emergencystretch lets LaTeX widen spaces where long names leave few places for a line break.
                        r"\centering\emergencystretch=4em",
                        rf"\includegraphics[width={inches:.2f}in]{{{stem}}}",
                        rf"\caption{{{breakable(drawing.caption + more)}}}",
                        rf"\label{{fig:{stem}}}",
                        r"\end{figure}",
                    ]
                )
            )
    return "\n\n".join(parts) + "\n"
