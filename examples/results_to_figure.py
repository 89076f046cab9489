"""A figure from results; the `# %%` lines separate cells in VS Code, PyCharm and Jupytext.

python examples/results_to_figure.py RESULTS FIGURE     # a results folder, and the file to write (.png, .pdf, .svg)
"""

# %% Load the results: one row per finished cell.
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # delete this line in a notebook

from matplotlib import pyplot as plt

import pai_bench

folder, figure = Path(sys.argv[1]), Path(sys.argv[2])
results = pai_bench.load_results(folder)

# %% Mean accuracy over the seeds, and the accuracy of the dense reference at the same seed.
dense = results[results["method"] == "dense"].set_index(["dataset", "model", "recipe", "seed"])["accuracy"]
pruned = results[results["method"] != "dense"].join(dense.rename("dense"), on=["dataset", "model", "recipe", "seed"])
pruned["lost"] = 100 * (pruned["dense"] - pruned["accuracy"])
table = pruned.groupby(["method", "sparsity"])["lost"].agg(["mean", "std", "count"])
print(table.round(2))

# %% Effective sparsity at the highest sparsity: kept weights that are on no path count as pruned, too.
highest = pruned[pruned["sparsity"] == pruned["sparsity"].max()]
print(highest[["method", "seed", "actual_sparsity", "effective_sparsity"]].to_string(index=False))

# %% One line per method: accuracy lost against density.
fig, ax = plt.subplots(figsize=(4.5, 3), layout="constrained")
for method, points in table.reset_index().groupby("method"):
    ax.errorbar(1 - points["sparsity"], points["mean"], points["std"].fillna(0), marker="o", capsize=2, label=method)
ax.set(xscale="log", xlabel="density", ylabel="accuracy lost (points)")
ax.legend(frameon=False)
fig.savefig(figure)
print(f"wrote {figure}")
