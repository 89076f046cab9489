"""Tests of controls: each one changes one property of a method's masks or weights and nothing else."""

from __future__ import annotations

import dataclasses
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

import pai_bench
from pai_bench.cells import CONTROLS, Cell, MethodSpec
from pai_bench.core.tensor_files import tensors_hash
from pai_bench.errors import PaiBenchError
from pai_bench.experiment.runner import CellRunner, Run
from pai_bench.pruning import controls
from pai_bench.pruning.selection import Sampling
from pai_bench.results import mask_files
from pai_bench.scoring import registry
from pai_bench.sweep.planning import checks
from pai_bench.sweep.planning import request as planning
from pai_bench.sweep.planning.plan import Plan, PlannedRun, jobs
from pai_bench.training.callbacks import Callback
from tests.unit.nets import brief, flat
from tests.unit.test_experiment import recipe

SCORED = [name for name in registry.names() if registry.is_builtin(name) and registry.has_controls(name)]


class Counting(Callback):
    """A callback that counts the passes of scoring."""

    def __init__(self) -> None:
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1


def a_run(method: str, sparsity: float = 0.9, seed: int = 0) -> Run:
    return Run(Cell(method, "digits", "conv8", sparsity, seed), recipe(epochs=1))


def masks_of(
    runner: CellRunner, method: str, sparsity: float = 0.9, seed: int = 0, callback: Callback | None = None
) -> dict[str, torch.Tensor]:
    run = a_run(method, sparsity, seed)
    return runner.masks(run, runner.model(run), callback or Callback()).tensors


@pytest.mark.slow
def test_a_shuffle_keeps_only_the_density_of_every_layer() -> None:
    runner = CellRunner(device="cpu")
    plain, shuffled = masks_of(runner, "snip"), masks_of(runner, "snip:control=shuffle")
    assert {name: int(mask.sum()) for name, mask in plain.items()} == {n: int(m.sum()) for n, m in shuffled.items()}
    kept, both = flat(plain).sum(), (flat(plain) & flat(shuffled)).sum()
    # By chance a layer of density d keeps d of its kept weights; a shuffle that does nothing keeps all.
    expected = sum(float(mask.sum()) ** 2 / mask.numel() for mask in plain.values())
    assert abs(float(both) - expected) < 4 * expected**0.5 < 0.9 * float(kept)


@pytest.mark.slow
def test_a_shuffle_depends_on_the_seed_and_not_on_the_sparsity() -> None:
    runner = CellRunner(device="cpu")
    first, again = (masks_of(runner, "snip:control=shuffle") for _ in range(2))
    assert tensors_hash(first) == tensors_hash(again)
    spec = MethodSpec.parse("snip:control=shuffle")
    plain = masks_of(runner, "snip")
    assert tensors_hash(controls.applied(spec, plain, 0)) != tensors_hash(controls.applied(spec, plain, 1))
    sparser = masks_of(runner, "snip:control=shuffle", 0.98)
    assert torch.equal(flat(sparser) & flat(first), flat(sparser))


@pytest.mark.slow
def test_an_inverted_method_keeps_the_lowest_scores() -> None:
    runner = CellRunner(device="cpu")
    network = runner.model(a_run("magnitude"))
    weights = flat({name: network.get_parameter(name) for name in masks_of(runner, "magnitude")}).abs()
    inverted = flat(masks_of(runner, "magnitude:control=invert"))
    assert int(inverted.sum()) == round(0.1 * len(inverted))
    assert weights[inverted].max() <= weights[~inverted].min()
    assert not (inverted & flat(masks_of(runner, "magnitude"))).any()


@pytest.mark.slow
def test_an_inverted_iterative_method_prunes_the_highest_in_every_round() -> None:
    """With 2 rounds the first keeps sqrt(0.1) of the weights; removed weights never return."""
    runner = CellRunner(device="cpu")
    one = flat(masks_of(runner, "synflow:rounds=1,control=invert", 1 - 0.1**0.5))
    two = flat(masks_of(runner, "synflow:rounds=2,control=invert", 0.9))
    assert torch.equal(one & two, two)


@pytest.mark.slow
@pytest.mark.parametrize("control", CONTROLS)
@pytest.mark.parametrize("name", SCORED)
def test_every_method_has_every_control_at_the_exact_count(name: str, control: str) -> None:
    method = brief(name) + ("," if ":" in brief(name) else ":")
    masks = flat(masks_of(CellRunner(device="cpu"), f"{method}control={control}"))
    assert int(masks.sum()) == round(0.1 * len(masks))


@pytest.mark.slow
def test_reinitialised_weights_train_under_the_same_masks() -> None:
    plain, redrawn = (CellRunner(device="cpu").run(a_run(f"snip{more}")).result for more in ("", ":control=reinit"))
    assert plain.mask_hash == redrawn.mask_hash
    assert plain.init_hash != redrawn.init_hash
    assert plain.accuracy != redrawn.accuracy
    assert redrawn.hyperparameters == {**plain.hyperparameters, "control": "reinit"}
    assert len({plain.fingerprint, redrawn.fingerprint}) == 2
    shuffled = CellRunner(device="cpu").run(a_run("snip:control=shuffle")).result
    assert shuffled.init_hash == plain.init_hash


@pytest.mark.slow
def test_a_method_is_scored_once_for_all_sparsities_and_controls() -> None:
    runner, callback = CellRunner(device="cpu"), Counting()
    masks_of(runner, "snip", callback=callback)
    once = callback.ticks
    for control in CONTROLS:
        for sparsity in (0.5, 0.9):
            masks_of(runner, f"snip:control={control}", sparsity, callback=callback)
    assert callback.ticks == once > 0
    # A round decides the scores of the next, so that an inverted iterative method has scores of its own.
    callback.ticks = 0
    masks_of(runner, "synflow:rounds=3", callback=callback)
    once = callback.ticks
    masks_of(runner, "synflow:rounds=3,control=shuffle", callback=callback)
    masks_of(runner, "synflow:rounds=3,control=reinit", callback=callback)
    assert callback.ticks == once
    masks_of(runner, "synflow:rounds=3,control=invert", callback=callback)
    assert callback.ticks == 2 * once


def test_runs_that_share_scores_are_one_job() -> None:
    methods = [
        f"{name}{control}" for name in ("snip", "synflow") for control in ("", *(f":control={c}" for c in CONTROLS))
    ]
    runs = [a_run(method, sparsity) for method in methods for sparsity in (0.5, 0.9)]
    plan = Plan(
        tuple(PlannedRun(run, "", "missing") for run in runs), tuple(PlannedRun(r, "", "missing") for r in runs)
    )
    found = [sorted(f"{run.cell.method} {run.cell.sparsity}" for run in job.runs) for job in jobs(plan)]
    assert sorted(map(len, found)) == [1, 1, 1, 1, 1, 1, 4, 4, 14]
    assert next(names for names in found if len(names) == 14)[0].startswith("snip")


def methods_of(*methods: str, control: tuple[str, ...] = CONTROLS) -> list[str]:
    request = planning.Request(methods=methods, controls=control, sparsities=(0.9,), seeds=(0,))
    return [run.cell.method for run in planning.expand(request)]


def test_a_grid_has_the_controls_of_methods_that_score() -> None:
    assert methods_of("snip", "random", "synflow:rounds=5", control=("shuffle", "invert")) == [
        "dense",
        *("snip", "snip:control=shuffle", "snip:control=invert"),
        "random",
        *("synflow:rounds=5", "synflow:control=shuffle,rounds=5", "synflow:control=invert,rounds=5"),
    ]
    assert methods_of("snip", "snip:control=reinit", control=("reinit",)) == ["dense", "snip", "snip:control=reinit"]


def test_controls_named_among_the_methods_are_the_only_ones_to_run() -> None:
    named = ("snip:control=shuffle", "synflow:control=invert,rounds=10")
    assert methods_of(*named, control=()) == ["dense", *named]
    assert methods_of(named[0], control=("reinit",)) == ["dense", named[0]], "and not the plain method"


@pytest.mark.parametrize("method", ["dense:control=shuffle", "random:control=invert", "snip:control=shufle"])
def test_a_control_without_effect_is_refused(method: str) -> None:
    with pytest.raises(PaiBenchError, match="control"):
        methods_of(method, control=())


def test_an_unknown_control_gets_a_suggestion() -> None:
    with pytest.raises(PaiBenchError, match="did you mean shuffle"):
        methods_of("snip", control=("shufle",))


@pytest.mark.slow
def test_masks_of_a_file_can_be_shuffled_but_not_inverted(tmp_path: Path) -> None:
    runner = CellRunner(device="cpu")
    plain = masks_of(runner, "snip")
    mask_files.save(tmp_path / "masks.npz", {name: mask.numpy() for name, mask in plain.items()})
    request = planning.Request(methods=(f"file:{tmp_path / 'masks.npz'}",), controls=CONTROLS, seeds=(0,))
    runs = planning.expand(planning.with_masks(request))
    name = runs[1].cell.method
    others = [f"{name}:control={control}" for control in ("shuffle", "reinit", "quota-of")]
    assert [run.cell.method for run in runs[1:]] == [name, *others]
    assert len({run.cell.sparsity for run in runs[1:]}) == 1
    assert all(MethodSpec.parse(run.cell.method).name == name for run in runs[1:])
    checks.check(runs, None)
    (copy,) = planning.keep_masks(runs, tmp_path / "results")
    kept = mask_files.read(copy).masks
    assert all(np.array_equal(kept[key], mask.numpy()) for key, mask in plain.items())
    shuffled = masks_of(runner, f"{name}:control=shuffle", runs[1].cell.sparsity)
    assert tensors_hash(shuffled) == tensors_hash(masks_of(runner, "snip:control=shuffle"))


@pytest.mark.slow
def test_a_mask_file_typed_with_a_control_is_shuffled(tmp_path: Path) -> None:
    runner = CellRunner(device="cpu")
    plain = masks_of(runner, "snip")
    place = tmp_path / "run:1" / "masks.npz"
    mask_files.save(place, {name: mask.numpy() for name, mask in plain.items()})
    request = planning.Request(methods=(f"file:{place}:control=shuffle",), seeds=(0,))
    _, run = planning.expand(planning.with_masks(request))
    assert run.cell.spec.control == "shuffle" and run.cell.method.startswith("file:masks-")
    shuffled = masks_of(runner, run.cell.method, run.cell.sparsity)
    assert tensors_hash(shuffled) == tensors_hash(masks_of(runner, "snip:control=shuffle")) != tensors_hash(plain)
    wrong = planning.Request(methods=(f"file:{place}:control=shufle",), seeds=(0,))
    with pytest.raises(PaiBenchError, match="shufle"):
        planning.expand(planning.with_masks(wrong))


def test_control_is_reserved_as_a_hyper_parameter_name() -> None:
    @dataclasses.dataclass(frozen=True)
    class Own:
        control: str = "mine"

    with pytest.raises(ValueError, match="names a control"):
        registry.register("own-control")(Own)


@pytest.mark.slow
def test_sampled_masks_have_the_frequencies_of_sampling_without_replacement() -> None:
    scores = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.0, -1.0])
    everything = torch.ones(6, dtype=torch.bool)
    expected = torch.zeros(6, dtype=torch.float64)
    weights = [5.0, 3.0, 2.0, 1.0]
    for one, other in permutations(range(4), 2):  # by enumeration of the ordered pairs
        chance = weights[one] / 11 * weights[other] / (11 - weights[one])
        expected[[one, other]] += chance
    rule, draws = Sampling(0), 1500
    found = sum(rule(scores, everything, 0.0, 2).double() for _ in range(draws)) / draws
    assert torch.allclose(found, expected, atol=4 * (0.25 / draws) ** 0.5)
    assert rule(scores, everything, 0.0, 5).tolist() == [True] * 5 + [False]
    assert rule(scores, everything & (scores != 5), 0.0, 4).tolist() == [False, True, True, True, True, False]
    ties = {tuple(rule(torch.zeros(6), everything, 0.0, 1).tolist()) for _ in range(60)}
    assert len(ties) == 6


@pytest.mark.slow
def test_sampled_masks_are_nested_and_follow_from_the_seed() -> None:
    runner = CellRunner(device="cpu")
    masks = flat(masks_of(runner, "snip:control=sample"))
    assert torch.equal(masks, flat(masks_of(runner, "snip:control=sample")))
    sparser = flat(masks_of(runner, "snip:control=sample", 0.98))
    assert torch.equal(sparser & masks, sparser)
    plain = flat(masks_of(runner, "snip"))
    by_chance = float(plain.sum()) ** 2 / plain.numel()
    assert 2 * by_chance < float((plain & masks).sum()) < 0.9 * float(plain.sum())


@pytest.mark.slow
def test_quotas_of_a_method_are_its_layer_counts_with_other_draws_than_its_shuffle() -> None:
    runner = CellRunner(device="cpu")
    for name in ("snip", "synflow:rounds=2", "erk"):
        twin = masks_of(runner, f"quota-of:{name}")
        plain = masks_of(runner, name)
        assert {n: int(m.sum()) for n, m in twin.items()} == {n: int(m.sum()) for n, m in plain.items()}
        assert tensors_hash(twin) != tensors_hash(plain)
    shuffled = masks_of(runner, "snip:control=shuffle")
    assert tensors_hash(masks_of(runner, "quota-of:snip")) != tensors_hash(shuffled)
    assert tensors_hash(masks_of(runner, "quota-of:snip", seed=1)) != tensors_hash(masks_of(runner, "quota-of:snip"))


def test_a_method_with_the_quotas_of_another_is_a_spec() -> None:
    spec = MethodSpec.parse("quota-of:prospr:steps=10,lr=0.5")
    assert str(spec) == "prospr:control=quota-of,lr=0.5,steps=10" and MethodSpec.parse(str(spec)) == spec
    with pytest.raises(PaiBenchError, match="gives control twice"):
        MethodSpec.parse("quota-of:snip:control=shuffle")
    request = planning.Request(methods=("quota-of:erk", "snip"), controls=("quota-of",), seeds=(0,), sparsities=(0.9,))
    methods = [run.cell.method for run in planning.expand(request)]
    assert methods == ["dense", "erk:control=quota-of", "snip", "snip:control=quota-of"]
    with pytest.raises(PaiBenchError, match="dense has no control quota-of"):
        planning.expand(planning.Request(methods=("quota-of:dense",), seeds=(0,)))


@pytest.mark.slow
def test_the_library_prunes_with_controls() -> None:
    runner = CellRunner(device="cpu")
    run = a_run("snip")
    network, data = runner.model(run), list(runner.scoring_batches(run, run.scorer()))
    for control in CONTROLS[:-1]:  # the last one needs another granularity: tests/unit/test_granularity.py
        ours = pai_bench.prune(network, data, f"snip:control={control}", sparsity=0.9)
        assert tensors_hash(ours) == tensors_hash(masks_of(runner, f"snip:control={control}"))
    with pytest.raises(PaiBenchError, match="controls change masks, not scores"):
        pai_bench.score(network, data, "quota-of:snip")
