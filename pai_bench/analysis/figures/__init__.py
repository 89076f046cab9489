"""Figures of a report at their final size, with captions and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pai_bench.analysis.figures import captions
from pai_bench.analysis.figures.accuracy import accuracy, difference_to_dense
from pai_bench.analysis.figures.baseline import baseline
from pai_bench.analysis.figures.controls import controls
from pai_bench.analysis.figures.cost import cost, flops
from pai_bench.analysis.figures.drawing import Drawing, save
from pai_bench.analysis.figures.failures import failures
from pai_bench.analysis.figures.layers import layers
from pai_bench.analysis.figures.masks import mask_overlap
from pai_bench.analysis.figures.material import Material
from pai_bench.analysis.figures.options import Options
from pai_bench.analysis.figures.speed import speed
from pai_bench.analysis.figures.summary import summary
from pai_bench.analysis.figures.training import effective, training
from pai_bench.errors import unknown

__all__ = ["DEFAULT", "ON_REQUEST", "Drawing", "Figures", "Material", "Options", "chosen", "draw", "save_all"]

Make = Callable[[Material], Drawing | str]
"""Draws a figure, or returns the reason why the results do not allow it."""

DEFAULT: dict[str, Make] = {
    "accuracy": accuracy,
    "difference-to-dense": difference_to_dense,
    "controls": controls,
    "layers": layers,
    "failures": failures,
    "cost": cost,
    "speed": speed,
    "baseline": baseline,
    "summary": summary,
}
"""Figures of every report, by name."""

ON_REQUEST: dict[str, Make] = {
    "mask-overlap": mask_overlap,
    "effective-sparsity": effective,
    "flops": flops,
    "training": training,
}
"""Figures that are drawn only by name or with "all"."""


@dataclass(frozen=True)
class Figures:
    """The figures of a report."""

    drawings: tuple[Drawing, ...]
    absent: tuple[tuple[str, str], ...]
    """(name, reason) of each figure that the results do not allow."""


def chosen(names: Sequence[str]) -> dict[str, Make]:
    """Return the figures with these names; the default ones for no name, and every figure for "all".

    Raises: PaiBenchError for an unknown name.
    """
    known = DEFAULT | ON_REQUEST
    if "all" in names:
        return known
    for name in names:
        if name not in known:
            raise unknown("figure", name, ("all", *known))
    return {name: known[name] for name in names} if names else DEFAULT


def draw(material: Material) -> Figures:
    """Draw the chosen figures as far as the results allow."""
    names = material.options.figures
    found = {name: make(material) for name, make in chosen(names).items()}
    return Figures(
        tuple(made for made in found.values() if isinstance(made, Drawing)),
        tuple(
            (name, made)
            for name, made in found.items()
            if isinstance(made, str) and (name in names or name not in ("controls", "speed"))
        ),
    )


def save_all(figures: Figures, options: Options, folder: Path) -> list[Path]:
    """Write all figures and their captions to a folder, and return the paths."""
    paths = [path for drawing in figures.drawings for path in save(drawing, folder)]
    texts = {
        "captions.md": captions.markdown(figures.drawings, figures.absent),
        "captions.tex": captions.latex(figures.drawings, options.inches),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [*paths, *(folder / name for name in texts)]
