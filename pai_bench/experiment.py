"""One cell, from its name to its result: seed, build, score, prune, train, measure."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pai_bench import datasets, models, precision, provenance, registry, training
from pai_bench.cells import Cell
from pai_bench.checkpoints import Checkpoints, Interrupted
from pai_bench.masking import MaskedGradients
from pai_bench.measures import Cost, effective_masks, flops, measured, tensors_hash
from pai_bench.pruning import Pruner, masks_at
from pai_bench.recipes import Recipe, result_fingerprint
from pai_bench.results import Layer, Result
from pai_bench.score_cache import ScoreCache, Scored
from pai_bench.scoring import Scorer
from pai_bench.seeds import derive_seed
from pai_bench.training import train
from pai_bench.watch import Watch

OVERLAP_SECONDS = 60.0
"""What it may cost to see how far float32 masks are from float64's."""


@dataclass(frozen=True)
class Run:
    """All that a job is handed for one cell: names and numbers only."""

    cell: Cell
    recipe: Recipe

    def scorer(self) -> Scorer:
        """The cell's method with its hyper-parameters."""
        return registry.get(self.cell.spec.name, dict(self.cell.spec.hyperparameters))

    def fingerprint(self) -> str:
        """Of everything that moves a number but the sparsity and the seed, which the cell itself names."""
        scorer = self.scorer()
        return result_fingerprint(
            method_name=self.cell.spec.name,
            method_version=registry.version(scorer),
            hyperparameters=registry.hyperparameters(scorer),
            dataset=self.cell.dataset,
            model=self.cell.model,
            recipe=self.recipe,
            trainer_version=training.VERSION,
            method_source=registry.source_hash(registry.module(self.cell.spec.name)),
            model_source=registry.source_hash(models.module(self.cell.model)),
        )


@dataclass(frozen=True)
class Outcome:
    """A result and the masks behind it (bool arrays by parameter name)."""

    result: Result
    masks: dict[str, np.ndarray]


class Laboratory:
    """Runs cells one after the other and keeps what later ones can use: the data, and scores (see `ScoreCache`).

    Cells that differ in how they are trained are scored once; so are those of a single-shot method that differ in
    sparsity.
    """

    def __init__(
        self,
        data_root: Path | None = None,
        device: str | None = None,
        data_origins: Mapping[str, str] | None = None,
        scores: ScoreCache | None = None,
    ) -> None:
        """Take the copy of each data set that was planned with, by name; another one is refused."""
        self._data_root = data_root
        self._data_origins = dict(data_origins or {})
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._dataset: tuple[tuple[object, ...], datasets.Dataset | datasets.Streamed] | None = None
        self._scores = scores or ScoreCache()

    def forget(self) -> None:
        """Drop what is kept for the next cell, for the sake of its memory."""
        self._dataset = None

    @staticmethod
    def shares_scores(scorer: Scorer) -> bool:
        """Whether one score vector of the method serves every sparsity: one round, and no quotas of its own."""
        return (
            int(getattr(scorer, "rounds", 1)) == 1 and not hasattr(scorer, "quotas") and getattr(scorer, "prunes", True)
        )

    def dataset(self, run: Run) -> datasets.Dataset | datasets.Streamed:
        """The data set, split as the recipe says, on the device; the one used last stays loaded."""
        name, data = run.cell.dataset, run.recipe.data
        key = name, data.split, data.validation_size, data.split_seed, data.train_fraction
        if self._dataset is None or self._dataset[0] != key:
            self._dataset = None  # room for the next one
            loaded = datasets.load(name, self._data_root, self.device, data)
            self._dataset = key, loaded
        return self._dataset[1]

    def model(self, run: Run) -> nn.Module:
        """The network at initialisation: the same for every method of one (data set, model, recipe, seed)."""
        info = datasets.info(run.cell.dataset)
        network = models.build(run.cell.model, info.channels, info.size, info.classes)
        models.initialise(network, run.recipe.init.scheme, derive_seed(run.cell.seed, "init"))
        return network.to(self.device)

    def scoring_batches(self, run: Run, scorer: Scorer) -> Iterable[tuple[Tensor, Tensor]]:
        """The recipe's scoring batches (for each round, where they are fresh), or as many as the method needs."""
        settings = run.recipe.scoring
        needed = getattr(scorer, "batches_needed", None)
        fresh = getattr(scorer, "fresh", False)
        rounds = int(getattr(scorer, "rounds", 1)) if fresh else 1
        batches = datasets.scoring_batches(
            self.dataset(run),
            settings.batch_size,
            needed() if needed else settings.batches * rounds,
            derive_seed(run.cell.seed, "scoring"),
            run.recipe.data.mean,
            run.recipe.data.std,
        )
        # What is read once, a round's share at a time, need never lie in memory as a whole.
        return batches if fresh else list(batches)

    def masks(self, run: Run, network: nn.Module, watch: Watch) -> tuple[dict[str, Tensor], Cost]:
        """The masks of a run and what scoring cost (all of it, also where scores are shared)."""
        cell = run.cell
        scorer = run.scorer()
        shared = self.shares_scores(scorer)

        draws = itertools.count()

        def redraw(net: nn.Module) -> None:
            models.initialise(net, run.recipe.init.scheme, derive_seed(cell.seed, "redraw", next(draws)))

        def compute() -> Scored:
            pruner = Pruner(
                network,
                self.scoring_batches(run, scorer),
                scorer,
                name=cell.method,
                seed=derive_seed(cell.seed, "method"),
                dtype=run.recipe.scoring.dtype,
                initialise=redraw,
                tick=watch.tick,
            )
            with measured(self.device) as cost:
                tensors = pruner.score(cell.sparsity) if shared else pruner.masks(cell.sparsity)
            return tensors, cost

        # All that scores follow from; how a recipe trains is not among it. Iterative methods depend on the sparsity.
        follows = (
            (cell.spec.name, registry.version(scorer), registry.hyperparameters(scorer), cell.seed),
            (cell.model, tensors_hash(dict(network.state_dict())), run.recipe.init.scheme),
            (cell.dataset, self.dataset(run).content_hash, asdict(run.recipe.data), asdict(run.recipe.scoring)),
            None if shared else cell.sparsity,
        )
        tensors, cost = self._scores.get(repr(follows), compute, self.device)
        return masks_at(tensors, cell.sparsity) if shared else tensors, cost

    def float64_overlap(
        self, run: Run, network: nn.Module, masks: dict[str, Tensor], cost: Cost, watch: Watch
    ) -> float | None:
        """Intersection over union of masks that were scored in float32 with float64's, if these cost a minute at most.

        None for other masks, and where it costs more.
        """
        scoring = run.recipe.scoring
        longest = cost.seconds * precision.float64_slowdown(device_name(self.device))
        if scoring.dtype != "float32" or not getattr(run.scorer(), "prunes", True) or longest > OVERLAP_SECONDS:
            return None
        exact = Run(run.cell, replace(run.recipe, scoring=replace(scoring, dtype="float64")))
        try:
            others, _ = self.masks(exact, network, watch)
        except torch.OutOfMemoryError:
            return None
        both = sum(int((mask & others[name]).sum()) for name, mask in masks.items())
        either = sum(int((mask | others[name]).sum()) for name, mask in masks.items())
        return both / either if either else 1.0

    def run(self, run: Run, watch: Watch | None = None, checkpoints: Checkpoints | None = None) -> Outcome:
        """Score, prune, train and measure one cell; with checkpoints, go on where an earlier attempt has stopped.

        Raises: PaiBenchError for bad input or scores that cannot be used; a collapsed or diverged network is a result.
            Interrupted when the checkpoints' request_stop was called.
        """
        cell, recipe = run.cell, run.recipe
        watch = watch or Watch()
        if checkpoints is not None and checkpoints.stop_requested:
            raise Interrupted
        watch.phase("loading")
        dataset = self.dataset(run)
        network = self.model(run)
        identity = {
            "fingerprint": run.fingerprint(),
            "init_hash": tensors_hash(dict(network.state_dict())),
            "data_hash": dataset.content_hash,
        }
        saved = checkpoints.load(**identity) if checkpoints is not None else None
        if saved is None:
            watch.phase("scoring")
            masks, scoring_cost = self.masks(run, network, watch)
            overlap = self.float64_overlap(run, network, masks, scoring_cost, watch)
        else:
            overlap = saved.get("float64_overlap")
            masks = {name: mask.to(self.device) for name, mask in saved["masks"].items()}
            scoring_cost = Cost(**saved["scoring_cost"])
        earlier = saved["attempts"] if saved is not None else []
        watch.phase("measuring")
        info = datasets.info(cell.dataset)
        shape = (info.channels, info.size, info.size)
        effective = effective_masks(network, masks, shape)
        dense_flops, sparse_flops = flops(network, masks, shape)
        MaskedGradients(network, masks)
        watch.phase("training")
        with measured(self.device) as training_cost:
            trained = train(
                network,
                masks,
                dataset,
                recipe,
                cell.seed,
                watch,
                checkpoints,
                saved,
                record={
                    **identity,
                    "masks": masks,
                    "scoring_cost": asdict(scoring_cost),
                    "float64_overlap": overlap,
                    "attempts": [*earlier, self._attempt(checkpoints)],
                },
            )
        layers = tuple(Layer(name, mask.numel(), int(mask.sum())) for name, mask in masks.items())
        size, kept = sum(layer.size for layer in layers), sum(layer.kept for layer in layers)
        empty = tuple(layer.name for layer in layers if layer.kept == 0)
        scorer = run.scorer()
        result = Result(
            method=cell.method,
            dataset=cell.dataset,
            model=cell.model,
            sparsity=cell.sparsity,
            seed=cell.seed,
            accuracy=trained.accuracy,
            status="diverged" if trained.diverged else "collapsed" if empty else "ok",
            actual_sparsity=1 - kept / size,
            effective_sparsity=1 - sum(int(mask.sum()) for mask in effective.values()) / size,
            init_hash=identity["init_hash"],
            mask_hash=tensors_hash(masks),
            fingerprint=identity["fingerprint"],
            recipe=recipe.name,
            recipe_values=recipe.values(),
            hyperparameters=registry.hyperparameters(scorer),
            method_version=registry.version(scorer),
            n_prunable=size,
            n_kept=kept,
            layers=layers,
            empty_layers=empty,
            curve=trained.curve,
            costs={
                "score_seconds": scoring_cost.seconds,
                "score_peak_bytes": scoring_cost.peak_bytes,
                "train_seconds": training_cost.seconds + (saved["seconds"] if saved is not None else 0.0),
                "train_peak_bytes": training_cost.peak_bytes,
                "flops_dense": dense_flops,
                "flops_sparse": sparse_flops,
            },
            chance=1 / info.classes,
            finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
            provenance={
                **provenance.collect(),
                "plugins": registry.plugins(),
                "device": device_name(self.device),
                "data_hash": dataset.content_hash,
                "data_origin": dataset.origin,
                "earlier_attempts": earlier,
                "step": trained.mechanism,
            },
            float64_overlap=overlap,
        )
        return Outcome(result, to_arrays(masks))

    def _attempt(self, checkpoints: Checkpoints | None) -> dict[str, str]:
        """Who trains, for the record of a cell that others finish."""
        name = checkpoints.attempt if checkpoints is not None else ""
        return {"attempt": name, "host": socket.gethostname(), "device": device_name(self.device)}


def to_arrays(masks: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Masks as bool arrays on the host."""
    return {name: mask.cpu().numpy() for name, mask in masks.items()}


def device_name(device: torch.device) -> str:
    """The model of the GPU, or "cpu"."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
