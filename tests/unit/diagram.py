"""The import rules of the architecture test, as the diagram and the table of docs/architecture.md."""

from __future__ import annotations

import ast
import graphlib
import re
from collections.abc import Mapping, Set
from html import escape
from pathlib import Path

Rules = Mapping[str, Set[str]]
"""Each package or module, and those that it may import."""

_BOX_HEIGHT, _ROW, _GAP, _MARGIN, _CHARACTER = 26, 74, 18, 16, 7.3
"""Sizes in pixels; the width of a character is for the monospaced font of 12 pixels."""
_STYLE = (
    "rect.page{fill:#fff}rect.box{fill:#eef3f8;stroke:#5b7a99}"
    "text{font:12px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1b2733;text-anchor:middle}"
    "path{fill:none;stroke:#8a9bad;stroke-width:1}"
)


def direct(rules: Rules) -> dict[str, set[str]]:
    """The imports that do not follow from others: the transitive reduction of the rules.

    Raises: graphlib.CycleError when two packages import each other, also through others.
    """
    below: dict[str, set[str]] = {}
    for name in graphlib.TopologicalSorter(rules).static_order():
        below[name] = set().union(*(below[other] | {other} for other in rules.get(name, ())))
    return {name: {other for other in rules[name] if not any(other in below[o] for o in rules[name])} for name in rules}


def rows(rules: Rules) -> list[list[str]]:
    """The packages from top to bottom, each below all that may import it; each row ordered by its neighbours above."""
    edges = direct(rules)
    depth: dict[str, int] = {}
    for name in reversed([*graphlib.TopologicalSorter(rules).static_order()]):
        depth[name] = 1 + max((depth[above] for above in edges if name in edges[above]), default=-1)
    found: list[list[str]] = [[] for _ in range(1 + max(depth.values()))]
    place: dict[str, float] = {}
    for level, row in enumerate(found):
        parents = {
            name: [place[above] for above in edges if name in edges[above]] for name in depth if depth[name] == level
        }
        row += sorted(parents, key=lambda name: (sum(parents[name]) / max(1, len(parents[name])), name))
        place.update({name: (i + 0.5) / len(row) for i, name in enumerate(row)})
    return found


def svg(rules: Rules) -> str:
    """The rules as a drawing: an arrow from each package down to those that it imports directly."""
    layers = rows(rules)
    widths = {name: round(_CHARACTER * len(name)) + 16 for name in rules}
    width = max(sum(widths[name] + _GAP for name in layer) for layer in layers) + 2 * _MARGIN
    height = _ROW * (len(layers) - 1) + _BOX_HEIGHT + 2 * _MARGIN
    corner: dict[str, tuple[int, int]] = {}
    for level, layer in enumerate(layers):
        free = (width - 2 * _MARGIN - sum(widths[name] for name in layer)) / len(layer)
        x = _MARGIN + free / 2
        for name in layer:
            corner[name] = round(x), _MARGIN + _ROW * level
            x += widths[name] + free
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img">',
        f"<title>Packages and their imports</title><style>{_STYLE}</style>",
        '<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 8 4 0 8z" style="fill:#8a9bad;stroke:none"/></marker></defs>',
        f'<rect class="page" width="{width}" height="{height}"/>',
    ]
    for name, others in direct(rules).items():
        x, y = corner[name][0] + widths[name] // 2, corner[name][1] + _BOX_HEIGHT
        for other in sorted(others):
            to_x, to_y = corner[other][0] + widths[other] // 2, corner[other][1]
            lines.append(f'<path d="M{x} {y}C{x} {y + 30} {to_x} {to_y - 30} {to_x} {to_y}" marker-end="url(#a)"/>')
    for name, (x, y) in corner.items():
        lines.append(f'<rect class="box" x="{x}" y="{y}" width="{widths[name]}" height="{_BOX_HEIGHT}" rx="4"/>')
        lines.append(f'<text x="{x + widths[name] // 2}" y="{y + 17}">{escape(name)}</text>')
    return "\n".join([*lines, "</svg>", ""])


def summary(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"(?<=\.)\s", " ".join(text.split()))[0]


def table(rules: Rules, sources: Mapping[str, Path]) -> str:
    """A Markdown table: each package from top to bottom, the first sentence of its docstring, what it may import."""
    lines = ["| package | | imports |", "|---|---|---|"]
    for name in (name for row in rows(rules) for name in row):
        imports = ", ".join(f"`{other}`" for other in sorted(rules[name])) or "nothing of pai-bench"
        lines.append(f"| `{name}` | {summary(sources[name])} | {imports} |")
    return "\n".join(lines)
