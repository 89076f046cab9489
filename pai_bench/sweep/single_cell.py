"""The commands `pai-bench prune` (masks of one cell to a file) and `pai-bench train` (one cell with given masks)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from pai_bench import cells, recipes, results
from pai_bench.cells import DENSE, GIVEN
from pai_bench.core.atomic import check_writable
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.datasets import loading as datasets
from pai_bench.errors import PaiBenchError
from pai_bench.experiment import process
from pai_bench.experiment.narrowing import narrows
from pai_bench.experiment.runner import CellRunner, Run, to_arrays
from pai_bench.pruning import effective as measures
from pai_bench.pruning import fixed_masks
from pai_bench.results import Epoch, mask_files
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.scoring.searching import searches
from pai_bench.scoring.weights import prunable
from pai_bench.sweep.execution.attempt import execute
from pai_bench.sweep.execution.claims import Owner
from pai_bench.sweep.execution.settings import RunSettings
from pai_bench.sweep.planning import checks
from pai_bench.sweep.planning import request as planning
from pai_bench.sweep.planning.plan import make_plan
from pai_bench.training.callbacks import Callback


@dataclass(frozen=True)
class Options:
    """Options shared by both commands, as given by the user."""

    dataset: str
    model: str | None
    recipe: str | None
    settings: tuple[str, ...]
    seed: int
    data_dir: Path | None
    plugins: tuple[Path, ...]
    as_json: bool


def _request(options: Options, method: str, sparsity: float) -> planning.Request:
    return planning.Request(
        methods=(method,),
        datasets=(options.dataset,),
        models=() if options.model is None else (options.model,),
        recipes=() if options.recipe is None else (options.recipe,),
        settings=recipes.parse_settings(options.settings),
        sparsities=(sparsity,),
        seeds=(options.seed,),
    )


def _one_run(request: planning.Request, data_dir: Path | None, root: Path | None = None) -> Run:
    """Return the only run of a request besides its dense reference, after checking it."""
    dense = request.methods == (DENSE,)
    runs = [run for run in planning.expand(request) if (run.cell.method == DENSE) == dense]
    if len(runs) != 1:
        raise PaiBenchError(f"--set makes {len(runs)} recipes", "give each key one value")
    checks.check(runs, data_dir, root, forget=True)
    return runs[0]


def _runner(options: Options) -> CellRunner:
    process.prepare()
    return CellRunner(options.data_dir)


def prune(options: Options, method: str, sparsity: str, out: Path) -> None:
    """Write the masks of one cell to `out`, and a table of the kept weights of each layer to stdout.

    Raises: PaiBenchError for bad input.
    """
    if out.suffix != ".npz":
        example = out.with_suffix(".npz") if out.name else "masks.npz"
        raise PaiBenchError(f"--out {out} does not end in .npz", f"use for example --out {example}")
    for plugin in options.plugins:
        fixed_masks.load_plugin(plugin)
    methods, sparsities = cells.split_specs(method), cells.parse_sparsities(sparsity)
    if len(methods) != 1 or len(sparsities) != 1:
        raise PaiBenchError(
            "prune computes the masks of one cell", "give one method and one sparsity; sweep takes lists"
        )
    run = _one_run(_request(options, methods[0], sparsities[0]), options.data_dir)
    if narrows(run):
        raise PaiBenchError(f"{methods[0]} trains a narrower network and prunes nothing", "run it with pai-bench sweep")
    if changes_masks(run.scorer()) or searches(run.scorer()):
        how = "searches its masks in a" if searches(run.scorer()) else "changes its masks during"
        raise PaiBenchError(
            f"{methods[0]} {how} training",
            "run it with pai-bench sweep: it saves the final masks",
        )
    check_writable(out.absolute().parent, "--out")
    runner = _runner(options)
    network = runner.model(run)
    scored = runner.masks(run, network, Callback())
    masks = scored.tensors
    arrays = to_arrays(masks)
    mask_files.save(out, arrays)
    info = datasets.info(run.cell.dataset)
    effective = measures.effective_masks(network, masks, info.shape)
    scoring = run.recipe.scoring
    counted = prunable(network, only=scoring.only, exclude=scoring.exclude)
    summary = {
        **asdict(run.cell),
        "recipe": run.recipe.name,
        "out": str(out),
        "as_method": mask_files.MaskFile(out, arrays).method,
        "init_hash": tensors_hash(dict(network.state_dict())),
        "mask_hash": tensors_hash(masks),
        "score_seconds": scored.cost.seconds,
        "layers": _layers(masks, effective),
        **_counts("total", masks, effective),
        "not_prunable": {**counted.left_out, **counted.frozen, **counted.embeddings},
    }
    print(json.dumps(summary, indent=1) if options.as_json else f"{_table(summary)}\n{counted}")


def _counts(name: str, masks: Mapping[str, Tensor], effective: Mapping[str, Tensor]) -> dict[str, Any]:
    size, kept = sum(mask.numel() for mask in masks.values()), sum(int(mask.sum()) for mask in masks.values())
    return {
        "name": name,
        "size": size,
        "kept": kept,
        "kept_on_paths": sum(int(effective[key].sum()) for key in masks),
        "density": kept / size,
    }


def _layers(masks: Mapping[str, Tensor], effective: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    return [{**_counts(key, {key: mask}, effective), "shape": list(mask.shape)} for key, mask in masks.items()]


def _table(summary: Mapping[str, Any]) -> str:
    lines = [("layer", "weights", "kept", "kept on paths", "density (%)")]
    for row in (*summary["layers"], summary):
        counts = (f"{row[key]:,}" for key in ("size", "kept", "kept_on_paths"))
        lines.append((row["name"], *counts, f"{100 * row['density']:.2f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            text.ljust(width) if n == 0 else text.rjust(width)
            for n, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


class _Epochs(Callback):
    def __init__(self, messages: Console) -> None:
        self._messages = messages

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        accuracy = "" if epoch.accuracy is None else f", accuracy {100 * epoch.accuracy:.2f} %"
        loss = "not finite" if epoch.loss is None else f"{epoch.loss:.4f}"
        self._messages.print(f"epoch {epoch.epoch}/{epochs}: loss {loss}{accuracy}", highlight=False)


def train(options: Options, masks: Path, results_option: Path | None, redo: bool, messages: Console) -> bool:
    """Train one network under the masks of a file; the result counts like any result of a sweep.

    Returns True if the result is on disk.

    Raises: PaiBenchError for bad input.
    """
    for plugin in options.plugins:
        fixed_masks.load_plugin(plugin)
    root = results.resolve_root(results_option)
    run = _one_run(planning.with_masks(_request(options, f"{GIVEN}{masks}", 0.0)), options.data_dir, root)
    check_writable(root, "--results")
    planning.keep_masks([run], root)
    make_plan([run], root, redo=redo).write(root)
    if redo:
        results.drop_checkpoints(root, run.key())
    runner = _runner(options)
    settings = RunSettings(root, options.data_dir, redo=redo)
    ended = execute(run, settings, runner, Owner.current(), callback=_Epochs(messages))
    if ended.kind == "failed":
        messages.print(f"failed: {ended.cause}; the traceback is in {results.failures_folder(root)}", markup=False)
        return False
    if ended.kind == "claimed":
        raise PaiBenchError(
            "another process is training this cell", "wait until it has ended; pai-bench status shows its progress"
        )
    if ended.kind == "present":
        messages.print("the cell already has a result; --redo trains it again", highlight=False)
    place = run.key().path(root)
    result = results.read(place)
    if options.as_json:
        print(json.dumps({"path": str(place), **results.read_plain(place)}))
    else:
        accuracy = "none" if result.accuracy is None else f"{100 * result.accuracy:.2f} %"
        print(f"{run.cell} · recipe {run.recipe.name}: accuracy {accuracy} ({result.status})\n{place}")
    return True
