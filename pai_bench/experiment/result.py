"""Construction of a cell's result record from the measurements of its run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from torch import Tensor

from pai_bench.core import plugins
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.datasets import loading
from pai_bench.experiment import provenance
from pai_bench.experiment.cost import Cost, Passes
from pai_bench.experiment.measuring import Structure
from pai_bench.experiment.narrowing import Complete
from pai_bench.experiment.passes import scoring_counts, with_training
from pai_bench.experiment.run import Run
from pai_bench.pruning.measures import Measures
from pai_bench.results import Layer, Result
from pai_bench.scoring import registry
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.training.loop import Trained


@dataclass(frozen=True)
class RunMeasurements:
    """Measurements of one run of a cell."""

    masks: Mapping[str, Tensor]
    structure: Structure
    measures: Measures
    """Measures of the masked network, before and after its training."""
    init_hash: str
    dataset: loading.InMemoryDataset | loading.StreamingDataset
    scoring: Cost
    training: Cost
    pack: int
    """Largest number of cells that trained concurrently while this one trained."""
    trained: Trained
    attempts: Sequence[Mapping[str, str]]
    """Earlier attempts whose checkpoints this run resumed."""
    device: str
    float64_overlap: float | None
    tied_at_cut: int | None
    float64_convolutions: str | None = None
    """Mechanism of wide convolutions where the scoring was done in float64 on a GPU."""
    complete: Complete | None = None
    """Sizes of the network at full width where the trained one is narrower."""


def make_result(run: Run, found: RunMeasurements) -> Result:
    """Build the result record of a cell."""
    cell, trained = run.cell, found.trained
    counts, full = {name: int(mask.sum()) for name, mask in found.masks.items()}, found.complete
    sizes = {name: mask.numel() for name, mask in found.masks.items()} if full is None else full.sizes
    # A narrower network may lack a layer: a shortcut between layers that rounding has made equally wide.
    layers = tuple(Layer(name, size, counts.get(name, 0)) for name, size in sizes.items())
    size, kept = sum(sizes.values()), sum(counts.values())
    empty = tuple(name for name, count in counts.items() if count == 0)
    scorer = run.scorer()
    recorded: dict[str, Any] = {
        **provenance.collect(),
        "plugins": plugins.plugins(),
        "device": found.device,
        "data_hash": found.dataset.content_hash,
        "data_origin": found.dataset.origin,
        "earlier_attempts": found.attempts,
        "step": trained.mechanism,
        "pack": found.pack,
    }
    if found.float64_convolutions is not None:
        recorded["float64_convolutions"] = found.float64_convolutions
    if full is not None:
        recorded["width"] = full.width
    return Result(
        method=cell.method,
        dataset=cell.dataset,
        model=cell.model,
        sparsity=cell.sparsity,
        seed=cell.seed,
        accuracy=trained.accuracy,
        status="diverged" if trained.diverged else "collapsed" if empty else "ok",
        actual_sparsity=1 - kept / size,
        effective_sparsity=1 - sum(int(mask.sum()) for mask in found.structure.effective.values()) / size,
        init_hash=found.init_hash,
        mask_hash=tensors_hash(found.masks),
        fingerprint=run.fingerprint(),
        recipe=run.recipe.name,
        recipe_values=run.recipe.values(),
        hyperparameters=run.hyperparameters(),
        method_version=registry.version(scorer),
        n_prunable=size,
        n_kept=kept,
        layers=layers,
        empty_layers=empty,
        curve=trained.curve,
        costs={
            "score_seconds": found.scoring.seconds,
            "score_peak_bytes": found.scoring.peak_bytes,
            "train_seconds": found.training.seconds,
            "train_peak_bytes": found.training.peak_bytes,
            "flops_dense": found.structure.flops[0] if full is None else full.flops,
            "flops_sparse": found.structure.flops[1],
            **scoring_counts(_passes(run, found)),
        },
        chance=1 / loading.info(cell.dataset).classes,
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        provenance=recorded,
        float64_overlap=found.float64_overlap,
        tied_at_cut=found.tied_at_cut,
        saw=_saw(run, trained),
        mask_updates=trained.mask_updates,
        measures={**found.measures.values},
        unmeasured={**found.measures.absent},
        class_accuracy=trained.class_accuracy,
    )


def _last_update(trained: Trained) -> int:
    """Return the number of training steps until the last change of the masks."""
    return trained.mask_updates.get("step", [0])[-1]


def _passes(run: Run, found: RunMeasurements) -> Passes | None:
    """Return the passes that decided the masks: of the scoring, and of the training until their last change."""
    if not changes_masks(run.scorer()):
        return found.scoring.passes
    steps, images = _last_update(found.trained), len(found.dataset.train_y)
    return with_training(found.scoring.passes, steps, run.recipe.train.batch_size, images)


def _saw(run: Run, trained: Trained) -> str:
    """Return the data that decided the masks, see `Result.saw`."""
    seen = registry.sees(run.cell.spec.name)
    if seen == "training":
        steps = _last_update(trained)
        epochs = run.search_epochs() or -(-steps // trained.epoch)
        return f"{epochs} epoch{'s' if epochs != 1 else ''}"
    return "inputs" if seen == "nothing" and run.recipe.scoring.warmup else seen
