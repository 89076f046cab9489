"""Write docs/reference-NAME.md and its figures with `pai-bench report`: python docs/draw_reference.py.

Each page is the whole report on one table of results/reference.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

from draw_gallery import DOCS, copy_figure, pai_bench

RELEASED = DOCS.parent / "results" / "reference"
TITLES = {"digits": "All methods on digits"}
"""Tables that have a page, with its title."""

INTRODUCTION = """# {title}

This page was written by `make reference` from [results/reference/{name}.csv](../results/reference/{name}.csv): {cells}
cells, {hours} core-hours in all ([provenance](../results/reference/{name}.json)). The sweeps and the report:

{commands}
"""


def page(name: str, title: str) -> None:
    """Write the page of a released table and its figures."""
    facts = json.loads((RELEASED / f"{name}.json").read_text(encoding="utf-8"))
    arguments = ["report", "--from", f"results/reference/{name}.csv"]
    commands = [*facts["commands"], " ".join(["pai-bench", *arguments])]
    text = INTRODUCTION.format(
        title=title,
        name=name,
        cells=f"{facts['cells']:,}",
        hours=facts["hours"],
        commands="\n".join(f"    {command}" for command in commands),
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report")
        pai_bench(*arguments, "--results", folder, "--out", str(out))
        report = (out / "report.md").read_text(encoding="utf-8")
        for figure in re.findall(r"\]\(([\w-]+)\.png\)", report):
            copy_figure(out / f"{figure}.png", DOCS / "reference" / f"{name}-{figure}.png")
    report = re.sub(r"\]\(([\w-]+\.png)\)", rf"](reference/{name}-\1)", report.removeprefix("# Report\n"))
    (DOCS / f"reference-{name}.md").write_text(text + report, encoding="utf-8")


def main() -> None:
    """Write all pages."""
    (DOCS / "reference").mkdir(exist_ok=True)
    for name, title in TITLES.items():
        page(name, title)


if __name__ == "__main__":
    main()
