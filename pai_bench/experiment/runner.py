"""Runner of cells: seed, build, score, prune, train and measure one cell."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from pai_bench import models
from pai_bench.core import plugins
from pai_bench.core.randomness import derive_seed, torch_seeded
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.datasets import loading
from pai_bench.experiment import narrowing, provenance
from pai_bench.experiment.cost import Cost, cost_of, float64_slowdown, measured
from pai_bench.experiment.first_trainings import FirstTrainings
from pai_bench.experiment.measuring import measure, measure_trained, untrained_accuracy
from pai_bench.experiment.outcome import Outcome, device_name, to_arrays
from pai_bench.experiment.passes import passes
from pai_bench.experiment.result import RunMeasurements, make_result
from pai_bench.experiment.run import Run
from pai_bench.experiment.score_cache import ScoreCache, Scored
from pai_bench.experiment.searching import searching
from pai_bench.pruning import controls
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.pruning.measures import Measures
from pai_bench.pruning.pruner import Pruner
from pai_bench.pruning.targets import PLAIN, Goal, masks_from_scores
from pai_bench.results import ties
from pai_bench.scoring import registry
from pai_bench.scoring.losses import n_outputs
from pai_bench.scoring.mask_updates import changes_masks
from pai_bench.scoring.problem import Scorer, prunable
from pai_bench.scoring.searching import searches
from pai_bench.training import loop as training
from pai_bench.training.callbacks import Callback
from pai_bench.training.checkpoints import Checkpoints, Interrupted
from pai_bench.training.cooperative import SharedClock, Task, run_to_completion

__all__ = ["CellRunner", "Outcome", "Run", "device_name", "to_arrays"]

OVERLAP_SECONDS = 60.0
"""Time limit for the comparison of float32 masks with float64 masks."""


class CellRunner:
    """Runner of cells, sequentially or as tasks, which caches the data set and the scores (see `ScoreCache`).

    Cells that differ only in training settings share one scoring. So do cells of a single-shot method that differ
    only in sparsity or control.
    """

    def __init__(
        self,
        data_root: Path | None = None,
        device: str | None = None,
        scores: ScoreCache | None = None,
        trainings: FirstTrainings | None = None,
    ) -> None:
        """Take the data root, the device (None: a GPU if available, else the CPU), and what cells share."""
        self._data_root = data_root
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)  # events, streams and generators default to the current device
        self._dataset: tuple[tuple[object, ...], loading.InMemoryDataset | loading.StreamingDataset] | None = None
        self._scores, self._trainings = scores or ScoreCache(), trainings or FirstTrainings()
        self._clock = SharedClock()

    def forget(self) -> None:
        """Drop the cached data set to free its memory."""
        self._dataset = None

    @staticmethod
    def shares_scores(scorer: Scorer) -> bool:
        """Return True if the method's scores do not depend on the sparsity: one round, no quotas, no `per_sparsity`."""
        of_one = hasattr(scorer, "quotas") or getattr(scorer, "per_sparsity", False)
        return int(getattr(scorer, "rounds", 1)) == 1 and not of_one and getattr(scorer, "prunes", True)

    def dataset(self, run: Run) -> loading.InMemoryDataset | loading.StreamingDataset:
        """Load the data set to the device, split as in the recipe; the most recent one stays loaded."""
        name, data = run.cell.dataset, run.recipe.data
        key = name, data.split, data.validation_size, data.split_seed, data.train_fraction
        if self._dataset is None or self._dataset[0] != key:
            self._dataset = None  # free its memory before the next data set is loaded
            loaded = loading.load(name, self._data_root, self.device, data)
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)  # tasks may read it at once in other streams
            self._dataset = key, loaded
        return self._dataset[1]

    def model(self, run: Run, purpose: str = "init") -> nn.Module:
        """Build the network at initialisation: the same for every method of one (data set, model, recipe, seed).

        A different `purpose` gives different weights; the control "reinit" trains weights that were not scored.
        """
        info = loading.info(run.cell.dataset)
        # A user's network may have parameters that are drawn in its constructor only.
        with torch_seeded(derive_seed(run.cell.seed, f"build for {purpose}")):
            outputs = n_outputs(run.recipe.train.loss, info.classes, run.cell.dataset)
            network = models.build(run.cell.model, info.channels, info.size, outputs, narrowing.width(run))
        models.initialise(network, run.recipe.init.scheme, derive_seed(run.cell.seed, purpose))
        return network.to(self.device)

    def scoring_batches(self, run: Run, scorer: Scorer) -> loading.ScoringBatches:
        """Return the batches for scoring: the method's own number, else the recipe's (per round for fresh batches)."""
        settings = run.recipe.scoring
        needed = getattr(scorer, "batches_needed", None)
        fresh = getattr(scorer, "fresh", False)
        rounds = int(getattr(scorer, "rounds", 1)) if fresh else 1
        batches = loading.scoring_batches(
            self.dataset(run),
            settings.batch_size,
            needed() if needed else settings.batches * rounds,
            derive_seed(run.cell.seed, "scoring"),
            run.recipe.data.mean,
            run.recipe.data.std,
            settings.data,
        )
        # Fresh batches are read only once, so they need not be in memory all at the same time.
        return batches if fresh else batches.loaded()

    def masks(self, run: Run, network: nn.Module, callback: Callback) -> Scored:
        """Compute the masks of a run, their ties, and the cost of scoring (the full cost even if scores are shared)."""
        cell, spec = run.cell, run.cell.spec
        scorer, select = run.scorer(), controls.selection(spec, cell.seed)
        if getattr(scorer, "starts_dense", False):
            weights = prunable(network, only=run.recipe.scoring.only, exclude=run.recipe.scoring.exclude)
            return Scored({name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}, Cost())
        shared, scoring = self.shares_scores(scorer), run.recipe.scoring
        goal = Goal(scoring.effective, scoring.granularity, by_weight=controls.by_weight(spec))
        # One set of scores serves every granularity.
        settings = replace(scoring, granularity=PLAIN.granularity) if shared else scoring
        draws = itertools.count()

        def redraw(net: nn.Module) -> None:
            models.initialise(net, run.recipe.init.scheme, derive_seed(cell.seed, "redraw", next(draws)))

        convolutions = run.float64_convolutions(self.device)  # the first call measures the device: before the clock

        def compute() -> Scored:
            batches = self.scoring_batches(run, scorer)
            pruner = Pruner(
                network,
                batches,
                scorer,
                name=cell.method,
                seed=derive_seed(cell.seed, "method"),
                dtype=run.recipe.scoring.dtype,
                initialise=redraw,
                tick=callback.tick,
                loss=run.recipe.train.loss,
                only=run.recipe.scoring.only,
                exclude=run.recipe.scoring.exclude,
                warmup=run.recipe.scoring.warmup,
            )
            with measured(self.device) as cost:
                tensors = pruner.score(cell.sparsity) if shared else pruner.masks(cell.sparsity, select, goal)
            cost.passes = passes(pruner.meter, spec.name, run.recipe.scoring.warmup, batches.different)
            return Scored(tensors, cost, pruner.tied_at_cut, pruner.noise)

        # The key lists everything that determines the scores. It excludes the training settings of the recipe, and
        # includes the sparsity for iterative methods only.
        follows = (
            (provenance.source_hash(), plugins.plugins(), torch.__version__, device_name(self.device)),
            (spec.name, registry.version(scorer), registry.hyperparameters(scorer), cell.seed),
            (cell.model, tensors_hash(dict(network.state_dict())), run.recipe.init.scheme),
            (cell.dataset, self.dataset(run).content_hash, asdict(run.recipe.data), asdict(settings)),
            (run.recipe.train.loss, convolutions, None if shared else (cell.sparsity, controls.own_rounds(spec))),
        )
        scored = self._scores.get(repr(follows), compute, self.device)
        masks, tied = scored.tensors, scored.tied
        if shared:
            shape = loading.info(cell.dataset).shape
            masks = masks_from_scores(scored.tensors, cell.sparsity, select, goal, network, shape)
            before = {name: torch.ones_like(mask) for name, mask in masks.items()}
            tied = ties.at_cut(scored.tensors, before, masks, layers=False, noise=scored.noise)
        return replace(scored, tensors=controls.applied(spec, masks, cell.seed), tied=tied)

    def float64_overlap(
        self, run: Run, network: nn.Module, masks: dict[str, Tensor], cost: Cost, callback: Callback
    ) -> float | None:
        """Compute the intersection over union of float32 masks and float64 masks.

        Returns None if the recipe does not score in float32, the method does not prune or changes its masks later,
        memory is insufficient (when no other cell trains), or float64 scoring would take longer than OVERLAP_SECONDS.
        """
        scoring = run.recipe.scoring
        longest = cost.seconds * float64_slowdown(self.device)
        scorer = run.scorer()
        final = getattr(scorer, "prunes", True) and not changes_masks(scorer) and not searches(scorer)
        if scoring.dtype != "float32" or not final or longest > OVERLAP_SECONDS:
            return None
        exact = Run(run.cell, replace(run.recipe, scoring=replace(scoring, dtype="float64")))
        try:
            others = self.masks(exact, network, callback).tensors
        except torch.OutOfMemoryError:
            if not len(self._clock):  # beside other cells, with fewer of them there is room
                return None
            raise
        both = sum(int((mask & others[name]).sum()) for name, mask in masks.items())
        either = sum(int((mask | others[name]).sum()) for name, mask in masks.items())
        return both / either if either else 1.0

    def run(self, run: Run, callback: Callback | None = None, checkpoints: Checkpoints | None = None) -> Outcome:
        """Run `running` to completion."""
        return run_to_completion(self.running(run, callback, checkpoints), self.device)

    def running(
        self, run: Run, callback: Callback | None = None, checkpoints: Checkpoints | None = None
    ) -> Task[Outcome]:
        """Score, prune, train and measure one cell as a resumable task; resume from checkpoints if there are any.

        Scoring is one step, a search is not. Interleaving tasks (`RoundRobin`) does not change results.

        Raises: PaiBenchError for bad input or scores that cannot be used; a collapsed or diverged network is a result.
            Interrupted when the checkpoints' request_stop was called.
        """
        callback = callback or Callback()
        if checkpoints is not None and checkpoints.stop_requested:
            raise Interrupted
        callback.phase("loading")
        dataset, purpose = self.dataset(run), controls.weights_purpose(run.cell.spec)
        scored = self.model(run)
        network = scored if purpose == "init" else self.model(run, purpose)
        identity = {
            "fingerprint": run.fingerprint(),
            "init_hash": tensors_hash(dict(network.state_dict())),
            "data_hash": dataset.content_hash,
        }
        saved = checkpoints.load(**identity, stage=None) if checkpoints is not None else None
        if saved is None:
            if searches(run.scorer()):
                with self._clock.share() as share:
                    found_masks = yield from searching(run, scored, dataset, callback, checkpoints, identity, share)
            callback.phase("scoring")
            with self._clock.unshared():
                if not searches(run.scorer()):
                    found_masks = self.masks(run, scored, callback)
                masks, scoring_cost = found_masks.tensors, found_masks.cost
                ranked = run.recipe.scoring.granularity == PLAIN.granularity  # single weights
                tied = found_masks.tied if ranked and not getattr(run.scorer(), "may_tie", False) else None
                overlap = self.float64_overlap(run, scored, masks, scoring_cost, callback)
                convolutions = run.float64_convolutions(self.device)
        else:
            convolutions, overlap, tied = map(saved.get, ("float64_convolutions", "float64_overlap", "tied_at_cut"))
            masks = {name: mask.to(self.device) for name, mask in saved["masks"].items()}
            scoring_cost = cost_of(saved["scoring_cost"])
        earlier = saved["attempts"] if saved is not None else []
        changing = run.changing(sum(mask.numel() for mask in masks.values()))
        if changing is not None:
            masks = {name: mask.clone() for name, mask in masks.items()}  # those in the cache must not change
        callback.phase("measuring")
        shape = loading.info(run.cell.dataset).shape
        with self._clock.unshared():
            before = measure(network, masks, shape) if changing is None else None
            MaskedGradients(network, masks)
            untrained = untrained_accuracy(network, dataset, run, callback, saved or {})
        callback.phase("training")
        record = {
            **identity,
            "masks": masks,
            "scoring_cost": asdict(scoring_cost),
            "float64_overlap": overlap,
            "tied_at_cut": tied,
            "float64_convolutions": convolutions,
            "untrained_accuracy": untrained,
            "attempts": [*earlier, provenance.attempt(getattr(checkpoints, "attempt", ""), device_name(self.device))],
        }
        firsts = self._trainings.of(run, identity, device_name(self.device))
        with self._clock.share() as share, measured(self.device) as training_cost, firsts as first:
            more = callback, checkpoints, saved, record, share, changing, first
            trained = yield from training.training(network, masks, dataset, run.recipe, run.cell.seed, *more)
        with self._clock.unshared():
            structure = before or measure(network, masks, shape)
            channels = measure_trained(network, masks, shape)
        found = RunMeasurements(
            masks=masks,
            structure=structure,
            measures=Measures({"untrained_accuracy": untrained}) | structure.measures | channels,
            init_hash=identity["init_hash"],
            dataset=dataset,
            scoring=scoring_cost,
            # The peak of the allocator is the device's: cells that train together cannot be told apart in it.
            training=Cost(trained.seconds, training_cost.peak_bytes if share.most == 1 else None),
            pack=share.most,
            trained=trained,
            attempts=earlier,
            device=device_name(self.device),
            float64_overlap=overlap,
            tied_at_cut=tied,
            float64_convolutions=convolutions,
            complete=narrowing.complete(run),
        )
        return Outcome(make_result(run, found), to_arrays(masks))
