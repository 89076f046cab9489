"""Columns of the two tables that all parts of a report share: one row per run, and one row per point.

Runs (`Collection.rows`, results.csv):

- source ("" for the results folder, else the name of a table), method, dataset, model, recipe, sparsity (the operating
  point, see `operating_points`), seed: the identity of a run, `CELL`;
- accuracy (fraction, NaN where none was recorded), status ("ok", "collapsed", "diverged");
- counted (the accuracy that statistics use: `accuracy`, else `chance` for a collapsed or diverged run; NaN where
  neither is known);
- epoch (key of `EPOCHS`: the epoch whose accuracy is reported; "" if the table does not state it). A source has results
  of one epoch only: a table with several epochs becomes several sources;
- chance (accuracy of guessing, 1/classes; NaN where not known), at_chance (True for a run with status "ok" whose
  accuracy is at most `AT_CHANCE` x chance);
- method_reported, sparsity_reported (as in the results folder or table, before names and sparsities are unified);
- note, suspect (text of the author of a table, "" for none);
- saw (data that decided the masks, see `Result.saw`; "training" for a method of which no more is known, "" if unknown);
- init_hash, mask_hash, fingerprint, n_kept, costs, measures and more for runs of the results folder, NaN or None for
  others. `docs/measures.md` describes every column.

Points (`statistics.summarise`, table.csv), one row per `POINT`:

- n (runs that count), runs (all runs with a result), planned (n plus missing runs), seeds (tuple of the counted seeds);
- mean, std (ddof 1), low, high (smallest and largest accuracy). The mean is NaN and n is 0 if a run failed and neither
  its accuracy nor chance is known. The std is NaN if n < 2, or if a run collapsed, diverged or is at chance: such
  runs are another population;
- collapsed, diverged, at_chance, tied (numbers of runs: "k of `runs`"; tied as in `results.ties`);
- epoch, chance, saw, note, suspect as above (several texts joined by "; ");
- sparsity_low, sparsity_high: range of the reported sparsities.
"""

from __future__ import annotations

OURS = ""
"""Source of results below the results root; the source of a table is the stem of its file name."""

RELEASED = "released"
"""Source of the results that pai-bench ships."""

CELL = ["source", "method", "dataset", "model", "recipe", "sparsity", "seed"]
"""Columns that identify a run."""

PANEL = ["dataset", "model", "recipe"]
"""Columns that identify a panel: results of different panels are never averaged or compared by seed."""

POINT = ["source", "method", *PANEL, "sparsity"]
"""Columns that identify a point: its runs differ in the seed only."""

EPOCHS = {
    "last": "last epoch",
    "best-test": "best test epoch",
    "best-val": "best validation epoch",
    "": "epoch not stated",
}
"""Descriptions of the values of the column `epoch`."""

AT_CHANCE = 1.5
"""Largest ratio of accuracy to chance at which a run is marked as at chance."""

SAME_POINT = 0.01
"""Sparsities of a table are one operating point if they differ by less than this fraction of the density."""
