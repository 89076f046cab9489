"""Published tables as files: the sweep that repeats each one, its published values, and a verdict for each value.

A file NAME.toml has a `summary`, the `paper`, a list `differs` of the differences from the published protocol, one or
more `[[sweep]]` tables with options of `pai-bench sweep` (and a table `set` with values of the recipe), a table
`[quick]` with the options of the smoke test, and the published values: `[[entry]]` tables, or tables `[[published]]`
that select rows of `pai_bench.analysis.published`. A table `[budgets]` asks for the smallest budget at which a method
reaches an accuracy instead.
"""

from pai_bench.reproductions.judge import RULE, VERDICTS, Judged, judge
from pai_bench.reproductions.schema import Entry, Reproduction, load, names, sweep_arguments

__all__ = [
    "RULE",
    "VERDICTS",
    "Entry",
    "Judged",
    "Reproduction",
    "judge",
    "load",
    "names",
    "sweep_arguments",
]
