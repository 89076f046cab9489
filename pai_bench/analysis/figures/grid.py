"""Figures that are grids of panels with curves over density."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from matplotlib.figure import Figure

from pai_bench.analysis.figures import captions, overlay
from pai_bench.analysis.figures.arrange import Arrangement, Line, arrange, even_width, flow, pages
from pai_bench.analysis.figures.curves import Panel, mostly_partial
from pai_bench.analysis.figures.layout import Row, new_axes, new_figure, panel_inches, place, style
from pai_bench.analysis.figures.material import SERIES, Material, Setting
from pai_bench.analysis.figures.panel import Legend, draw_panel
from pai_bench.analysis.figures.published_curves import chosen
from pai_bench.analysis.figures.scale import AXIS_LABELS, set_density_axis, set_value_axis

_CAPTION_ROOM, _LEGEND_ROOM = 0.9, 0.6
"""Space on a page for the caption, and for legend and axis labels, in inches."""


@dataclass(frozen=True)
class Grid:
    """Rows of panels; a panel is None where a slot of the grid is empty."""

    rows: tuple[tuple[Panel | None, ...], ...]
    lines: tuple[Line, ...]
    groups: tuple[object, ...]
    """Rows with the same group share the vertical range."""

    @property
    def panels(self) -> list[Panel]:
        """All panels in order."""
        return [panel for row in self.rows for panel in row if panel is not None]

    def densities(self, column: int) -> list[float]:
        """All densities of the panels in a column, which share the horizontal axis."""
        panels = [row[column] for row in self.rows if column < len(row)]
        return sorted({density for panel in panels if panel is not None for density in panel.densities})


def columns_of(material: Material) -> int:
    """Return the largest number of panels beside each other."""
    inches = material.options.inches
    return 4 if inches > 5 else 2


def by_setting(material: Material, make: Callable[[Setting], Panel | None]) -> tuple[Grid, Arrangement]:
    """Return one panel per setting in a grid of data set x model, or small multiples where there are many series."""
    panels = {setting: panel for setting in material.settings if (panel := make(setting)) is not None}
    arrangement = arrange(list(panels), columns_of(material))
    if len(material.series) > SERIES and not material.options.highlight:
        return _small_multiples(material, panels, arrangement), arrangement
    muted = frozenset(key for key in material.series if not material.highlighted(key[1]))
    panels = {
        setting: chosen(replace(panel, title=arrangement.titles.get(setting, ""), muted=muted), SERIES)
        for setting, panel in panels.items()
    }
    rows = tuple(tuple(None if slot is None else panels[slot] for slot in line.slots) for line in arrangement.lines)
    return Grid(rows, arrangement.lines, tuple(range(len(rows)))), arrangement


def _small_multiples(material: Material, panels: dict[Setting, Panel], arrangement: Arrangement) -> Grid:
    """Return one panel per setting and series, with all other series of the setting in grey."""
    rows: list[tuple[Panel | None, ...]] = []
    lines: list[Line] = []
    groups: list[object] = []
    for setting, panel in panels.items():
        shown = [
            replace(
                panel,
                title=curve.label,
                muted=frozenset(key for key in material.series if key != (curve.source, curve.method)),
                published=tuple(one for one in panel.published if one.method == curve.method),
            )
            for curve in panel.curves
            if not curve.is_dense
        ]
        title = "" if len(panels) == 1 else "\n".join(part for part in setting if part)
        width = columns_of(material)
        for start in range(0, len(shown), width):
            part = shown[start : start + width]
            rows.append((*part, *[None] * (width - len(part))))
            lines.append(Line((*[setting] * len(part), *[None] * (width - len(part))), title))
            groups.append(setting)
    return Grid(tuple(rows), tuple(lines), tuple(groups))


def in_sequence(panels: Sequence[Panel], material: Material) -> Grid:
    """Return panels in reading order; those of one data set in a row share the vertical range."""
    width = even_width(len(panels), columns_of(material))
    parts = [tuple(panels[start : start + width]) for start in range(0, len(panels), width)]
    rows = tuple((*part, *[None] * (width - len(part))) for part in parts)
    return Grid(rows, flow([panel.setting for panel in panels], width), tuple(range(len(rows))))


def draw(
    material: Material,
    grid: Grid,
    ylabel: str,
    value_range: Callable[[Sequence[Panel]], tuple[float, float]],
    caption: str,
    edges: bool = False,
) -> list[Figure]:
    """Draw a grid, one figure a page, with room for the caption.

    With `edges`, points below an axis have a marker on its lower edge.
    """
    with style():
        inches, columns = material.options.inches, max(len(row) for row in grid.rows)
        own = any(line.own_range for line in grid.lines)
        wide = panel_inches(inches, columns, own)
        high = min(max(0.62 * wide, 0.86), 2.3) if columns > 1 else min(0.62 * wide, 2.4)
        strip = [(0.6 if columns > 2 else 0.45) * high if _published(row) else 0.0 for row in grid.rows]
        heights = [high + below + 0.35 for below in strip]
        room = material.options.page.height - captions.room(caption, inches, _CAPTION_ROOM) - _LEGEND_ROOM
        return [
            _page(material, grid, indices, (wide, high, strip), ylabel, value_range, edges)
            for indices in pages(grid.lines, heights, room)
        ]


def _published(row: Sequence[Panel | None]) -> bool:
    return any(panel is not None and panel.published for panel in row)


def _page(
    material: Material,
    grid: Grid,
    indices: Sequence[int],
    sizes: tuple[float, float, Sequence[float]],
    ylabel: str,
    value_range: Callable[[Sequence[Panel]], tuple[float, float]],
    edges: bool,
) -> Figure:
    wide, high, strips = sizes
    figure = new_figure(material.options.inches)
    legend = Legend(mark_partial=not mostly_partial(grid.panels))
    rows = []
    order, papers = _order(material, grid.panels), overlay.papers_of(grid.panels)
    margin = max(overlay.margin(panel, wide) for panel in grid.panels)
    legend.marks.update(overlay.legend_marks(_on_page(grid, indices)))
    for index in indices:
        line, panels = grid.lines[index], grid.rows[index]
        group = [p for row, key in zip(grid.rows, grid.groups, strict=True) if key == grid.groups[index] for p in row]
        common = value_range([panel for panel in group if panel is not None])
        row = Row([], high, line.title, own_ticks=line.own_range, strip_height=strips[index])
        for column, panel in enumerate(panels):
            if panel is None:
                row.axes.append(None)
                row.strips.append(None)
                continue
            low, top = value_range([panel]) if line.own_range else common
            ax = new_axes(figure)
            set_density_axis(ax, grid.densities(column), material.options.x, wide, margin)
            set_value_axis(ax, low, top, high)
            ax.set_title(panel.title)
            draw_panel(ax, panel, legend, order, low, wide, edges)
            overlay.draw(ax, panel, wide, papers)
            row.axes.append(ax)
            strip = new_axes(figure) if strips[index] and panel.published else None
            row.strips.append(strip)
            if strip is not None:
                set_density_axis(strip, grid.densities(column), material.options.x, wide, margin)
                shared = [other for other in group if other is not None]
                overlay.draw_differences(strip, panel, shared, (wide, strips[index]), papers)
        rows.append(row)
    strip_label = "Ours \N{MINUS SIGN} published (points)" if any(row.strip_height for row in rows) else ""
    entries = legend.entries()
    place(figure, rows, entries, AXIS_LABELS[material.options.x], ylabel, strip_label)
    return figure


def _on_page(grid: Grid, indices: Sequence[int]) -> list[Panel]:
    """Return the panels of a page."""
    return [panel for index in indices for panel in grid.rows[index] if panel is not None]


def _order(material: Material, panels: Sequence[Panel]) -> list[tuple[str, str]]:
    """Return (source, method) of all series in the order of the legend."""
    seen = {(curve.source, curve.method) for panel in panels for curve in panel.curves if not curve.is_dense}
    known = [key for key in material.series if key in seen]
    return known + [
        key
        for key in dict.fromkeys(
            (curve.source, curve.method) for panel in panels for curve in panel.curves if not curve.is_dense
        )
        if key not in known
    ]


def padded(low: float, high: float, floor: float = -math.inf, ceiling: float = math.inf) -> tuple[float, float]:
    """Extend a range by 5 % on both sides (by a point where it is empty), within [floor, ceiling]."""
    margin = 0.05 * (high - low) or 1.0
    return max(low - margin, floor), min(high + margin, ceiling)


__all__ = ["Grid", "by_setting", "columns_of", "draw", "in_sequence", "padded"]
