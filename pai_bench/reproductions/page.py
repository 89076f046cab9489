"""The page docs/reproduction.md: the verdict table first, then each reproduction with its figure and differences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from pai_bench.reproductions import figure, output, schema
from pai_bench.reproductions.judge import NOT_RUN, RULE, VERDICTS, judge

HEAD = """# Reproductions of published tables

This page was written by `make reproduction` from the files in `pai_bench/reproductions` and the results in
`results/reference`. No value was tuned: each sweep runs the published protocol once, as far as it is known, and the
differences are listed.
"""

USAGE = """## Run one yourself

    pai-bench reproduce list
    pai-bench reproduce snip-lenet-300-100

A reproduction is an ordinary sweep. It resumes when the command is repeated, takes the options of `sweep` (for instance
`--dry-run`, `--where slurm` or `--workers 1`), and writes `table.md`, `table.csv`, `table.tex` and `figure.pdf` to
`reproductions/NAME` in the results folder. `--judge` runs nothing and judges the available results. `--quick` is a
smoke test with a few training steps.
"""


def write(folder: Path, rows: pd.DataFrame) -> Path:
    """Write reproduction.md to `folder` and the figures to its subfolder `figures`; return the path of the page."""
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    parts = [HEAD, summary(rows), USAGE]
    for name in schema.names():
        reproduction = schema.load(name)
        drawn = figure.save(reproduction, judge(reproduction, rows), rows, figures / f"reproduction-{name}")
        picture = f"![{reproduction.summary}](figures/reproduction-{name}.png)\n\n" if drawn else ""
        parts.append(f"## {name}\n\n{picture}{output.markdown(reproduction, rows, rule='')}")
    path = folder / "reproduction.md"
    path.write_text("\n".join(part.rstrip() + "\n" for part in parts), encoding="utf-8")
    return path


def summary(rows: pd.DataFrame) -> str:
    """Format the number of verdicts of each reproduction, and the rule."""
    head = ["reproduction", "table", *VERDICTS]
    body = []
    for name in schema.names():
        reproduction = schema.load(name)
        counted = Counter(item.verdict for item in judge(reproduction, rows))
        if reproduction.targets:
            line = ["no verdict: see below"] + [""] * (len(VERDICTS) - 1)
        else:
            line = [str(counted[verdict]) if counted[verdict] else "" for verdict in VERDICTS]
            if set(counted) == {NOT_RUN}:
                line = [*[""] * (len(VERDICTS) - 1), "all"]
        body.append([f"[{name}](#{name})", reproduction.summary, *line])
    return f"{output.table(head, body)}\n\n{RULE}\n"
