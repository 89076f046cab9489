"""Figure of methods beside their controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pai_bench.analysis.display_names import dataset_name, method_name, model_name, recipe_names
from pai_bench.analysis.figures import captions, curves, grid
from pai_bench.analysis.figures.curves import Curve, Panel
from pai_bench.analysis.figures.drawing import Drawing
from pai_bench.analysis.figures.material import Material, Setting
from pai_bench.analysis.statistics import split_control
from pai_bench.analysis.style import CONTROL_LABELS, CONTROL_STYLES, by_value, from_source
from pai_bench.analysis.tables import measure
from pai_bench.cells import DENSE

_DESCRIPTIONS = {
    "shuffle": "masks shuffled within each layer",
    "reinit": "weights drawn again after pruning",
    "invert": "scores inverted",
    "sample": "masks sampled by score",
    "quota-of": "random masks with the same layer counts",
}
"""Descriptions of the controls in the caption."""
_BROKEN = 3
"""Factor by which points of broken networks may lengthen the accuracy axis before they are moved below it."""


def controls(material: Material) -> Drawing | str:
    """Draw each method that has controls beside them, one panel per method and setting."""
    panels = [panel for setting in material.settings for panel in control_panels(material, setting)]
    if not panels:
        return "there are no results of controls"
    label = measure(material.summary["recipe"])
    found = grid.in_sequence(panels, material)
    below = any(_range([panel])[0] > p.mean for panel in panels for curve in panel.curves for p in curve.points)
    text = captions.sentences(
        f"Methods beside their controls: {', '.join(_described(panels))}",
        *captions.curves(material, panels),
        "Markers on the lower edge: points below the axis" if below else "",
    )
    figures = grid.draw(material, found, label, _range, text, edges=True)
    return Drawing("controls", "Methods beside their controls", tuple(figures), text, curves.table(panels))


def _described(panels: Sequence[Panel]) -> list[str]:
    """Return the descriptions of the controls that the panels have."""
    shown = {curve.method for panel in panels for curve in panel.curves}
    return [text for control, text in _DESCRIPTIONS.items() if CONTROL_LABELS[control] in shown]


def control_panels(material: Material, setting: Setting) -> list[Panel]:
    """Return one panel per method with controls; its series are named by control."""
    rows = material.all_of(setting)
    split = rows["method"].map(split_control)
    controlled = {name for name, control in split if control is not None} & set(rows["method"])
    several = len(material.settings) > 1
    panels = []
    for method in sorted(controlled, key=by_value):
        shown = []
        own = rows[[base in (method, DENSE) for base, _ in split]]
        for (source, name), points in curves.points_by_series(own).items():
            place = material.sources.index(source)
            if name == DENSE:
                shown.append(Curve(DENSE, source, material.label(DENSE, source), material.look(DENSE, source),
                                   points))  # fmt: skip
                continue
            control = CONTROL_LABELS[split_control(name)[1]]
            label = f"{control} [{source}]" if source and len(material.sources) > 1 else control
            look = from_source(CONTROL_STYLES[control], place)
            shown.append(Curve(control, source, label, look, points))
        order = [DENSE, *CONTROL_LABELS.values()]
        shown.sort(key=lambda curve: (order.index(curve.method), curve.source))
        title = [method_name(method)]
        if several:
            title += [f"{dataset_name(setting.dataset)}, {model_name(setting.model)}"]
            title += [name for name in [recipe_names(s.recipe for s in material.settings)[setting.recipe]] if name]
        panels.append(Panel(setting, tuple(shown), chance=100 * material.chance(setting), title="\n".join(title)))
    return panels


def _range(panels: Sequence[Panel]) -> tuple[float, float]:
    """Return the range of all points; without those of inverted scores where they would compress the others."""
    inverted = CONTROL_LABELS["invert"]
    sound = [
        Panel(panel.setting, tuple(curve for curve in panel.curves if curve.method != inverted)) for panel in panels
    ]
    everything, others = curves.accuracy_range(panels), curves.accuracy_range(sound)
    # Inverted scores often leave networks at chance, which would compress all other differences.
    broken = everything[1] - everything[0] > _BROKEN * max(others[1] - others[0], 2.0)
    low, high = others if broken and math.isfinite(others[0]) else everything
    return grid.padded(low, high, floor=-1.5, ceiling=101.5)
