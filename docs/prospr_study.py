"""Study of docs/prospr-study.md: `masks` scores ResNet-20 in resumable parts, `collect` makes tables and figure.

python docs/prospr_study.py masks FOLDER DATA     # resumes where it was stopped
python docs/prospr_study.py collect FOLDER        # FOLDER/masks, and FOLDER/results from pai-bench sweep

Rows of the table for which the folder has no data are kept.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from pai_bench import results
from pai_bench.cells import Cell
from pai_bench.results import index, mask_files

STEPS = (1, 3, 10, 30, 100)
VARIANTS = {
    "full": "prospr:",
    "first order": "prospr:variant=first_order,",
    "detached buffer": "prospr:detach_first_buffer=true,",
}
SPARSITY = 0.98
MASKS_ONLY = "ResNet-20, CIFAR-10, 32 images"
SETTINGS = {
    ("fashionmnist", "conv28"): "conv28, Fashion-MNIST, 100 images",
    ("cifar10", "resnet20"): "ResNet-20, CIFAR-10, 128 images",
}
"""Labels of the settings by data set and model, with the number of images in the batch of a step."""
LOOKS = {
    "full": ("D", "-", "#000000", 1.0),
    "first order": ("o", "--", "#0072b2", 0.93),
    "detached buffer": ("s", "-.", "#d55e00", 1.07),
    "float32": ("^", ":", "#009e73", 1.14),
}
"""Marker, line, colour, and a factor by which points are shifted so that their error bars do not overlap."""
FIGURES = Path(__file__).parent / "figures"
TABLE = Path(__file__).parents[1] / "results" / "reference" / "prospr-study.csv"


def make_masks(folder: Path, data: Path) -> None:
    """Compute masks of ResNet-20 on CIFAR-10 for batches of 32 images and seed 0, one file per mask."""
    import torch

    from pai_bench import recipes
    from pai_bench.experiment.runner import CellRunner, Run, to_arrays
    from pai_bench.training.callbacks import Callback

    torch.set_num_threads(1)
    runner = CellRunner(data, "cpu")
    recipe = recipes.load("prospr", "cifar10", "resnet20")
    for steps in STEPS:
        for variant, spec in VARIANTS.items():
            for dtype in ("float64", "float32") if variant == "full" else ("float64",):
                place = folder / "masks" / f"{variant}_{dtype}_{steps}.npz"
                if place.exists():
                    continue
                scoring = dataclasses.replace(recipe.scoring, batch_size=32, dtype=dtype)
                cell = Cell(f"{spec}steps={steps}", "cifar10", "resnet20", SPARSITY, 0)
                run = Run(cell, dataclasses.replace(recipe, scoring=scoring))
                masks, cost = runner.masks(run, runner.model(run), Callback())
                mask_files.save(place, to_arrays(masks))
                print(f"{place.stem}: {cost.seconds:.0f} s, {(cost.peak_bytes or 0) / 1e6:.0f} MB", flush=True)


def flat(masks: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([mask.ravel() for mask in masks.values()])


def pieces(folder: Path) -> Iterable[dict[str, object]]:
    """Yield one dict per mask: setting, seed, variant, dtype, steps, kept (bool [N]), accuracy and status."""
    for place in sorted((folder / "masks").glob("*.npz")):
        variant, dtype, steps = place.stem.split("_")
        kept = flat(mask_files.read(place).masks)
        yield {"setting": MASKS_ONLY, "seed": 0, "variant": variant, "dtype": dtype, "steps": int(steps),
               "kept": kept, "accuracy": None, "status": None}  # fmt: skip
    for row in index.read(folder / "results").rows:
        cell = Cell(*(row[key] for key in ("method", "dataset", "model", "sparsity", "seed")))
        values = dict(cell.spec.hyperparameters)
        if (cell.dataset, cell.model) not in SETTINGS:
            continue
        variant = "full"
        if values.get("variant") == "first_order":
            variant = "first order"
        elif values.get("detach_first_buffer"):
            variant = "detached buffer"
        yield {
            "setting": SETTINGS[cell.dataset, cell.model],
            "seed": cell.seed,
            "variant": variant if cell.spec.name == "prospr" else cell.spec.name,
            "dtype": "float32" if "float32" in row["recipe"] else "float64",
            "steps": int(values.get("steps", 3)) if cell.spec.name == "prospr" else 0,
            "kept": flat(results.read_masks(Path(row["path"]))),
            "accuracy": row["accuracy"],
            "status": row["status"],
        }


def collect(folder: Path) -> pd.DataFrame:
    """Return one row per mask: accuracy, and the fraction of kept weights in the full float64 mask of the same M."""
    frame = pd.DataFrame(pieces(folder)).sort_values(["setting", "variant", "dtype", "steps", "seed"])
    reference = {
        (row.setting, row.seed, row.steps): row.kept
        for row in frame.itertuples()
        if (row.variant, row.dtype) == ("full", "float64")
    }

    def overlap(row: pd.Series) -> float:
        other = reference.get((row.setting, row.seed, row.steps))
        return float((row.kept & other).sum() / row.kept.sum()) if other is not None else float("nan")

    frame["overlap"] = frame.apply(overlap, axis=1)
    before = pd.read_csv(TABLE)
    before = before[~before["setting"].isin(frame["setting"])]
    return pd.concat([before, frame.drop(columns="kept")]).sort_values(["setting", "variant", "dtype", "steps", "seed"])


def draw(frame: pd.DataFrame) -> None:
    """Draw one column per setting: overlap of masks above, and accuracy below if networks were trained."""
    matplotlib.use("Agg")
    settings = sorted(frame["setting"].unique())
    figure, axes = plt.subplots(2, len(settings), figsize=(4.0 * len(settings), 6.4), layout="constrained")
    prospr = frame[frame["steps"] > 0].copy()
    prospr["line"] = prospr["variant"].where(prospr["dtype"] == "float64", "float32")
    for (above, below), setting in zip(axes.T, settings, strict=True):
        part = prospr[prospr["setting"] == setting]
        for line in ("first order", "detached buffer", "float32"):
            _line(above, part[part["line"] == line], "overlap", line)
        above.axhline(1 - SPARSITY, color="0.6", linewidth=0.8)
        above.text(1, 1 - SPARSITY + 0.01, "two random masks", color="0.4", fontsize=8)
        above.set(title=f"{setting}\nn = {part['seed'].nunique()}", ylim=(0, 1.03))
        trained = part[part["accuracy"].notna()]
        if trained.empty:
            below.set_axis_off()
            below.text(0.5, 0.5, "not trained", ha="center", transform=below.transAxes, color="0.4")
            continue
        for line in LOOKS:
            _line(
                below, trained[trained["line"] == line].assign(accuracy=lambda t: 100 * t["accuracy"]), "accuracy", line
            )
        snip = 100 * frame.loc[(frame["variant"] == "snip") & (frame["setting"] == setting), "accuracy"].mean()
        below.axhline(snip, color="0.6", linewidth=0.8)
        below.text(1, snip, "SNIP", color="0.4", fontsize=8, va="bottom")
    axes[0, 0].set_ylabel("share of kept weights in common\nwith the full mask in float64")
    for axis in axes[1]:
        axis.set_ylabel("test accuracy (%)")
    for axis in axes.flat:
        axis.set_xscale("log")
        axis.set_xticks(STEPS, [str(steps) for steps in STEPS])
        axis.minorticks_off()
        axis.set_xlabel("inner steps M")
        axis.spines[["top", "right"]].set_visible(False)
    shown = {label: handle for axis in axes[1] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=len(shown), frameon=False)
    figure.savefig(FIGURES / "prospr-study.png", dpi=150)
    figure.savefig(FIGURES / "prospr-study.pdf")


def _line(axis: plt.Axes, part: pd.DataFrame, column: str, label: str) -> None:
    """Plot the mean over seeds, with the sample standard deviation if there are several."""
    grouped = part.groupby("steps")[column].agg(["mean", "std"])
    if len(grouped):
        marker, line, colour, aside = LOOKS[label]
        axis.errorbar(grouped.index * aside, grouped["mean"], grouped["std"].fillna(0), label=label, marker=marker,
                      linestyle=line, color=colour, markersize=4, linewidth=1.2, capsize=2)  # fmt: skip


def main() -> None:
    folder = Path(sys.argv[2])
    if sys.argv[1] == "masks":
        make_masks(folder, Path(sys.argv[3]))
        return
    frame = collect(folder)
    frame.to_csv(TABLE, index=False, float_format="%.6g")
    draw(frame)
    shown = frame.assign(accuracy=100 * frame["accuracy"].astype(float))
    keys = ["setting", "variant", "dtype", "steps"]
    print(shown.groupby(keys)[["overlap", "accuracy"]].agg(["mean", "std", "count"]).round(3).to_string())


if __name__ == "__main__":
    main()
