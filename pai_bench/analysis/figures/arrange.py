"""Arrangement of settings as a grid of data set x model, in pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pai_bench.analysis.display_names import dataset_name, distinct, model_name, recipe_names
from pai_bench.analysis.figures.material import Setting

PANELS = 24
"""Largest number of panels on a page."""


@dataclass(frozen=True)
class Line:
    """A row of the grid; an empty slot is None."""

    slots: tuple[Setting | None, ...]
    title: str
    own_range: bool = False
    """True where the panels are of several data sets, so that each has its own vertical range."""


@dataclass(frozen=True)
class Arrangement:
    """Rows of a figure and the titles above its panels."""

    lines: tuple[Line, ...]
    titles: Mapping[Setting, str]
    aliases: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of models in the data that are displayed under one name, where there are several."""


def arrange(settings: Sequence[Setting], columns: int) -> Arrangement:
    """Arrange settings in rows of at most `columns` panels.

    A row holds the models of one data set and recipe, and a column one model, where the settings form such a grid.
    Otherwise panels follow each other, with the names of data set and model above each.
    """
    names = _model_names(settings)
    recipes = recipe_names(setting.recipe for setting in settings)
    groups: dict[tuple[str, str], dict[str, Setting]] = {}
    for setting in settings:
        groups.setdefault((setting.dataset, setting.recipe), {})[names[setting]] = setting
    models = list(dict.fromkeys(names.values()))
    aliases = {
        name: found
        for name in models
        if len(found := tuple(dict.fromkeys(s.model for s in settings if names[s] == name))) > 1
    }
    # A grid that is mostly empty would waste the page.
    if len(models) > 1 and len(settings) >= 0.6 * len(models) * len(groups):
        lines: list[Line] = []
        titles: dict[Setting, str] = {}
        if len(groups) == 1:
            columns = even_width(len(models), columns)
        for start in range(0, len(models), columns):
            part = models[start : start + columns]
            if len(groups) == 1 and start:
                part += [""] * (min(columns, len(models)) - len(part))
            seen: set[str] = set()
            for (dataset, recipe), members in groups.items():
                slots = tuple(members.get(name) for name in part)
                if not any(slots):
                    continue
                lines.append(Line(slots, _title(dataset, recipes[recipe], "\n")))
                titles |= {slot: name for slot, name in zip(slots, part, strict=True) if slot and name not in seen}
                seen |= {name for slot, name in zip(slots, part, strict=True) if slot}
        return Arrangement(tuple(lines), titles, aliases)
    titles = {
        setting: "\n".join(
            part for part in (dataset_name(setting.dataset), names[setting], recipes[setting.recipe]) if part
        )
        if len(settings) > 1
        else " · ".join((dataset_name(setting.dataset), names[setting]))
        for setting in settings
    }
    return Arrangement(flow(settings, columns), titles, aliases)


def even_width(panels: int, columns: int) -> int:
    """Return the number of panels in a row for as few rows as possible with as few empty places as possible.

    Five panels in rows of at most four are three and two, not four and one.
    """
    rows = max(1, math.ceil(panels / columns))
    return max(1, math.ceil(panels / rows))


def flow(settings: Sequence[Setting], columns: int) -> tuple[Line, ...]:
    """Return rows of panels in sequence; panels of several data sets have their own vertical ranges."""
    width = even_width(len(settings), columns)
    parts = [list(settings[start : start + width]) for start in range(0, len(settings), width)]
    return tuple(
        Line((*part, *[None] * (width - len(part))), "", own_range=len({setting.dataset for setting in part}) > 1)
        for part in parts
    )


def pages(lines: Sequence[Line], heights: Sequence[float], room: float) -> list[list[int]]:
    """Return the indices of the rows of each page: at most PANELS panels and `room` inches of rows."""
    found: list[list[int]] = [[]]
    panels, used = 0, 0.0
    for index, (line, height) in enumerate(zip(lines, heights, strict=True)):
        count = sum(slot is not None for slot in line.slots)
        if found[-1] and (panels + count > PANELS or used + height > room):
            found.append([])
            panels, used = 0, 0.0
        found[-1].append(index)
        panels, used = panels + count, used + height
    return found


def _model_names(settings: Sequence[Setting]) -> dict[Setting, str]:
    """Return the displayed model of each setting; models of one data set never share a name."""
    found: dict[Setting, str] = {}
    for dataset in dict.fromkeys(setting.dataset for setting in settings):
        own = [setting for setting in settings if setting.dataset == dataset]
        shown = distinct([setting.model for setting in own], model_name)
        found |= {setting: shown[setting.model] for setting in own}
    return found


def _title(dataset: str, recipe: str, between: str) -> str:
    return between.join(part for part in (dataset_name(dataset), recipe) if part)
