"""Masks on a model: zeros at every forward pass after any write to the weights, and the removal of the masks."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import pai_bench
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.masking import unwrapped

from .nets import batches, tiny

X, Y = batches(1)[0]


def some(model: nn.Module) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {n: torch.rand(p.shape, generator=generator) < 0.3 for n, p in model.named_parameters() if p.ndim > 1}


MASKS = some(tiny())


def alive(model: nn.Module, masks: dict[str, Tensor] = MASKS) -> int:
    """The number of pruned weights that are not zero."""
    model = unwrapped(model)
    return sum(int(model.get_parameter(name)[~mask.to("cpu")].count_nonzero()) for name, mask in masks.items())


def masked() -> nn.Module:
    model = tiny()
    pai_bench.apply_masks(model, MASKS)
    return model


def train(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    optimiser.zero_grad()
    F.cross_entropy(model(X), Y).backward()
    optimiser.step()


def with_a_history(model: nn.Module) -> None:
    for make in (lambda p: torch.optim.SGD(p, 0.1, momentum=0.9), lambda p: torch.optim.Adam(p, 0.01)):
        dense = tiny()
        optimiser = make(dense.parameters())
        train(dense, optimiser)
        model.load_state_dict(dense.state_dict())
        mine = make(model.parameters())
        mine.load_state_dict(optimiser.state_dict())
        train(model, mine)


def noise(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.data.add_(torch.ones_like(parameter))


WRITERS: dict[str, Callable[[nn.Module], object]] = {
    "optimiser": with_a_history,
    "load": lambda model: model.load_state_dict(tiny(1).state_dict()),
    "assign": lambda model: model.load_state_dict(tiny(1).state_dict(), assign=True),
    "reset": lambda model: [m.reset_parameters() for m in model.modules() if hasattr(m, "reset_parameters")],
    "vector": lambda model: nn.utils.vector_to_parameters(torch.ones(10_000), model.parameters()),
    "noise": noise,
}


@pytest.mark.slow
@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("copied", [False, True])
def test_pruned_weights_are_zero_at_the_next_forward_pass_after_any_write(writer: str, copied: bool) -> None:
    model = copy.deepcopy(masked()) if copied else masked()
    WRITERS[writer](model)
    F.cross_entropy(model(X), Y).backward()
    assert alive(model) == 0
    assert not any(bool(model.get_parameter(name).grad[~mask].any()) for name, mask in MASKS.items())
    kept = sum(int(model.get_parameter(name)[mask].count_nonzero()) for name, mask in MASKS.items())
    assert kept == sum(int(mask.sum()) for mask in MASKS.values())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["save", "bfloat16", "double", "compiled", "ema", "wrapped"])
def test_masks_survive_common_operations_on_a_model(how: str) -> None:
    model: nn.Module = masked()
    x = X
    if how == "save":
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        model = torch.load(file, weights_only=False)
    elif how in ("bfloat16", "double"):
        x = X.to(getattr(torch, how))
        model = model.to(x.dtype)
    elif how == "compiled":
        model = torch.compile(model, backend="eager", fullgraph=True)
    elif how == "ema":
        model = torch.optim.swa_utils.AveragedModel(model)
        model.update_parameters(tiny(1))
        model(x)
        model = model.module
    else:
        model = nn.DataParallel(model)
    model(x)
    unwrapped(model).load_state_dict(tiny(1).state_dict())
    noise(model)
    model(x).float().sum().backward()
    assert alive(model) == 0
    # Two forward passes before one backward pass: zeroing must not change tensors that the first one saved.
    (model(x) + model(x)).float().sum().backward()


@pytest.mark.slow
@pytest.mark.parametrize("before", [False, True])
def test_compiled_code_allows_several_forward_passes_before_the_backward_pass(before: bool) -> None:
    model, plain = tiny(), masked()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    if before:
        compiled(X)
        model.load_state_dict(tiny().state_dict())  # running statistics of BatchNorm
    pai_bench.apply_masks(compiled, MASKS)
    for each in (model, plain):
        noise(each)
    for step in (1, 2):  # the weights change in between
        losses = []
        for each in (compiled, plain):
            optimiser = torch.optim.SGD(each.parameters(), 0.1, momentum=0.9)
            optimiser.zero_grad()
            loss = F.cross_entropy(each(X), Y) + F.cross_entropy(each(X * step), Y)
            loss.backward()
            optimiser.step()
            losses.append(loss)
        assert torch.allclose(*losses, rtol=1e-4), step
        assert alive(model) == 0
    for name, parameter in plain.named_parameters():
        assert torch.allclose(model.get_parameter(name), parameter, atol=1e-5), name


@pytest.mark.slow
def test_code_compiled_before_the_masks_applies_them() -> None:
    model = tiny()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(X)
    pai_bench.apply_masks(compiled, MASKS)
    noise(model)
    expected = copy.deepcopy(model)(X)
    assert torch.equal(compiled(X), expected) and alive(model) == 0
    F.cross_entropy(compiled(X), Y).backward()
    assert not bool(model.fc.weight.grad[~MASKS["fc.weight"]].any())


def test_replicas_of_data_parallel_use_masked_weights() -> None:
    """Build the replicas like torch.nn.parallel.replicate, which requires GPUs."""
    model = masked()
    noise(model)
    copies = {module: module._replicate_for_data_parallel() for module in model.modules()}  # type: ignore[no-untyped-call]
    for module, replica in copies.items():
        for key, child in module._modules.items():
            setattr(replica, key, copies[child])
        for key, parameter in module._parameters.items():
            setattr(replica, key, None if parameter is None else parameter * 1)
    output = copies[model](X)
    assert torch.equal(output, masked_output(model))
    output.sum().backward()
    assert not bool(model.fc.weight.grad[~MASKS["fc.weight"]].any())


def masked_output(model: nn.Module) -> Tensor:
    plain = tiny()
    plain.load_state_dict({n: v * MASKS[n] if n in MASKS else v for n, v in model.state_dict(keep_vars=True).items()})
    return plain(X)


def test_a_layer_called_directly_is_masked() -> None:
    model = masked()
    noise(model)
    model.fc(torch.ones(1, 5))
    assert not bool(model.fc.weight[~MASKS["fc.weight"]].any()) and bool(
        model.conv1.weight[~MASKS["conv1.weight"]].any()
    )


def test_a_checkpoint_of_the_state_has_zeros_and_the_usual_keys() -> None:
    model = masked()
    noise(model)
    state = model.state_dict()
    assert list(state) == list(tiny().state_dict())
    assert not any(bool(state[name][~mask].any()) for name, mask in MASKS.items())
    fresh = tiny()
    fresh.load_state_dict(state)
    assert pai_bench.masks_of(fresh) == {}
    pai_bench.apply_masks(fresh, pai_bench.masks_of(model))
    noise(fresh)
    fresh(X)
    assert alive(fresh) == 0


@pytest.mark.slow
def test_names_may_have_the_prefixes_of_wrappers_or_lack_them() -> None:
    for wrap in (lambda m: m, nn.DataParallel, lambda m: torch.compile(m, backend="eager")):
        for prefix in ("", "module.", "_orig_mod.", "module._orig_mod."):
            model = wrap(tiny())
            pai_bench.apply_masks(model, {prefix + name: mask for name, mask in MASKS.items()})
            assert alive(model) == 0 and pai_bench.masks_of(model).keys() == MASKS.keys()


def test_masks_that_are_removed_leave_zeros_and_no_hook() -> None:
    model = masked()
    noise(model)
    pai_bench.remove_masks(model)
    assert alive(model) == 0 and pai_bench.masks_of(model) == {}
    for module in model.modules():
        hooks = (module._forward_pre_hooks, module._forward_hooks, module._state_dict_pre_hooks)
        assert not any((*hooks, module._load_state_dict_post_hooks, module._forward_hooks_always_called))
    F.cross_entropy(model(X), Y).backward()
    assert bool(model.fc.weight.grad[~MASKS["fc.weight"]].any())
    pai_bench.remove_masks(model)


@pytest.mark.parametrize("transform", ["call", "grad", "vmap"])
def test_functional_transforms_of_a_masked_model_are_refused(transform: str) -> None:
    model = masked().eval()
    state = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def loss(state: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(model, state, (X,)).sum()

    with pytest.raises(PaiBenchError, match=r"conv1\.weight has a mask, but .*functional_call") as caught:
        if transform == "call":
            loss(state)
        elif transform == "grad":
            torch.func.grad(loss)(state)
        else:
            torch.func.vmap(loss)({name: torch.stack([value, value]) for name, value in state.items()})
    assert "remove_masks" in caught.value.remedy
    model(X)
    pai_bench.remove_masks(model)
    loss(state)


def test_layers_pruned_by_torch_are_listed_and_not_pruned_twice() -> None:
    model = tiny()
    torch_prune.custom_from_mask(model.fc, "weight", MASKS["fc.weight"])
    assert torch.equal(pai_bench.masks_of(model)["fc.weight"], MASKS["fc.weight"])
    with pytest.raises(PaiBenchError, match=r"fc\.weight is already pruned by torch\.nn\.utils\.prune") as caught:
        pai_bench.apply_masks(model, MASKS)
    assert "prune.remove" in caught.value.remedy
    other = masked()
    torch_prune.custom_from_mask(other.fc, "weight", MASKS["fc.weight"])
    with pytest.raises(PaiBenchError, match=r"fc\.weight has a mask, but .*prune"):
        other(X)


@pytest.mark.slow
def test_an_export_is_refused_until_the_masks_are_permanent() -> None:
    model = masked().eval()
    with pytest.raises(PaiBenchError, match="export"):
        torch.export.export(model, (X,))


OPTIMISERS: dict[str, Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]] = {
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 0.01),
    "fused": lambda p: torch.optim.AdamW(p, 0.01, fused=True),
}


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_pruned_weights_are_zero_directly_after_a_step_and_after_loading(optimiser: str) -> None:
    m = nn.Sequential(nn.Flatten(), nn.Linear(27, 16), nn.ReLU(), nn.Linear(16, 5))
    x, y = torch.randn(8, 3, 3, 3), torch.arange(8) % 5
    first = {k: v.clone() for k, v in m.state_dict().items()}
    o = OPTIMISERS[optimiser](m.parameters())

    def step() -> None:
        o.zero_grad()
        F.cross_entropy(m(x), y).backward()
        o.step()

    step()
    masks = pai_bench.prune(m, [(x, y)], "snip", sparsity=0.8)
    pai_bench.apply_masks(m, masks)
    for _ in range(3):
        step()
        assert alive(m, masks) == 0
    m.load_state_dict(first)
    assert alive(m, masks) == 0
    kept = {name: first[name][mask] for name, mask in masks.items()}
    assert all(torch.equal(m.get_parameter(name)[masks[name]], values) for name, values in kept.items())
    step()
    assert alive(m, masks) == 0
    m[1].load_state_dict({"weight": first["1.weight"], "bias": first["1.bias"]})  # one layer alone
    assert alive(m, masks) == 0
    m.load_state_dict({name: value.clone() for name, value in first.items()}, assign=True)
    assert alive(m, masks) == 0
    o = OPTIMISERS[optimiser](m.parameters())
    step()
    nn.init.normal_(m.get_parameter("1.weight"))
    step()
    assert alive(m, masks) == 0


@pytest.mark.parametrize("how", ["copy", "pickle"])
def test_a_step_leaves_zeros_in_copies_of_a_masked_model(how: str) -> None:
    model = masked()
    if how == "copy":
        model = copy.deepcopy(model)
    else:
        file = io.BytesIO()
        torch.save(model, file)
        file.seek(0)
        model = torch.load(file, weights_only=False)
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for parameter in model.parameters():
        optimiser.state[parameter]["momentum_buffer"] = torch.ones_like(parameter)
    train(model, optimiser)
    assert alive(model) == 0


def test_a_training_run_resumes_with_masks_that_are_applied_again() -> None:
    model = masked()
    optimiser = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    train(model, optimiser)
    fresh = tiny(1)
    fresh.load_state_dict(model.state_dict())
    pai_bench.apply_masks(fresh, pai_bench.masks_of(model))
    mine = torch.optim.SGD(fresh.parameters(), 0.1, momentum=0.9)
    mine.load_state_dict(optimiser.state_dict())
    for _ in range(4):
        train(fresh, mine)
        assert alive(fresh) == 0


def test_optimisers_without_masked_parameters_are_unchanged() -> None:
    masked()
    models = [tiny(), masked()]
    pai_bench.remove_masks(models[1])
    expected = copy.deepcopy(models)
    for pair in (models, expected):
        for model in pair:
            train(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9))
    for ours, theirs in zip(models, expected, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    assert alive(models[1]) > 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64, torch.complex128])
def test_pruned_weights_that_are_not_finite_become_zero(value: float, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False, dtype=dtype), nn.Linear(3, 2, bias=False, dtype=dtype))
    masks = {name: torch.arange(p.numel()).view_as(p) % 2 == 0 for name, p in model.named_parameters()}
    pai_bench.apply_masks(model, masks)
    kept = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    full = {name: torch.where(masks[name], old, torch.full_like(old, value)) for name, old in kept.items()}
    for writer in (lambda: model.load_state_dict(full), lambda: fill(model, full)):
        writer()
        assert torch.isfinite(model(torch.ones(1, 4, dtype=dtype)).abs()).all()
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, kept[name]) and not torch.signbit(parameter[~masks[name]].real.float()).any()
    # A kept weight that has diverged stays as it is.
    fill(model, {name: torch.full_like(p, value) for name, p in model.named_parameters()})
    model(torch.ones(1, 4, dtype=dtype))
    assert alive(model, masks) == 0
    full_value = torch.full((), value, dtype=dtype)
    assert all(torch.isclose(p[masks[n]], full_value, equal_nan=True).all() for n, p in model.named_parameters())


def fill(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, parameter in model.named_parameters():
        parameter.data.copy_(values[name])


def test_sparsity_is_the_fraction_of_prunable_weights_that_the_masks_prune() -> None:
    model = tiny()
    assert pai_bench.sparsity(model) == 0.0
    pai_bench.apply_masks(model, pai_bench.prune(model, batches(), "random", sparsity=0.75))
    pruned = 482 - round(0.25 * 482)
    assert pai_bench.sparsity(model) == pai_bench.sparsity(nn.DataParallel(model)) == pruned / 482
    model.fc.weight.requires_grad_(False)  # frozen after pruning
    assert pai_bench.sparsity(model) == pruned / 482
    pai_bench.remove_masks(model)
    assert pai_bench.sparsity(model) == 0.0
    other = tiny()
    pai_bench.apply_masks(other, {"fc.weight": torch.zeros(10, 5, dtype=torch.bool)})
    assert pai_bench.sparsity(other) == 50 / 482
    with pytest.raises(PaiBenchError, match="nothing to prune"):
        pai_bench.sparsity(nn.BatchNorm2d(3))


@pytest.mark.slow
@pytest.mark.parametrize("wrapper", ["data parallel", "distributed", "compiled", "compiled distributed"])
def test_wrapped_models_are_scored_and_pruned_by_their_inner_module(wrapper: str, tmp_path: Path) -> None:
    plain, model = tiny(), tiny()
    wrapped: nn.Module = model
    distributed = "distributed" in wrapper
    if distributed:
        torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        if "compiled" in wrapper:
            wrapped = torch.compile(wrapped, backend="eager")
        if distributed:
            wrapped = nn.parallel.DistributedDataParallel(wrapped)
        elif wrapper == "data parallel":
            wrapped = nn.DataParallel(wrapped)
        for method in ("snip", "grasp", "synflow"):
            expected = pai_bench.score(plain, batches(), method)
            scores = pai_bench.score(wrapped, batches(), method)
            assert list(scores) == list(expected)
            assert all(torch.equal(scores[name], score) for name, score in expected.items())
        masks = pai_bench.prune(wrapped, batches(), "snip", sparsity=0.8)
        assert masks.keys() == expected.keys()
        pai_bench.apply_masks(wrapped, masks)
        optimiser = torch.optim.SGD(wrapped.parameters(), 0.1, momentum=0.9)
        train(wrapped, optimiser)
        assert alive(wrapped, masks) == 0
    finally:
        if distributed:
            torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_effective_masks_of_a_model_that_carries_masks() -> None:
    model, plain = tiny(), tiny()
    masks = pai_bench.prune(model, batches(), "random", sparsity=0.97)
    expected = effective_masks(plain, masks, (3, 6, 6))
    dense = {name: torch.ones_like(mask) for name, mask in masks.items()}
    pai_bench.apply_masks(model, masks)
    found = effective_masks(model, masks, (3, 6, 6))
    assert all(torch.equal(found[name], expected[name]) for name in masks)
    assert sum(int(mask.sum()) for mask in found.values()) < sum(int(mask.sum()) for mask in masks.values())
    # The question is independent of the masks on the model.
    assert all(mask.all() for mask in effective_masks(model, dense, (3, 6, 6)).values())
    assert all(torch.equal(mask, masks[name]) for name, mask in pai_bench.masks_of(model).items())


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is (deprecated|not supported)")
@pytest.mark.parametrize(
    "call, cause",
    [
        (lambda masks: pai_bench.apply_masks(tiny(), list(masks.values())), "an object of type list"),  # type: ignore[arg-type]
        (lambda masks: pai_bench.apply_masks(tiny(), None), "an object of type NoneType"),  # type: ignore[arg-type]
        (lambda masks: pai_bench.apply_masks(tiny().to("meta"), masks), "is on the meta device"),
        (lambda masks: pai_bench.save_masks(masks, "masks.npz"), "of types dict and str"),
        (lambda masks: pai_bench.prune(tiny(), batches(), "magnitude", only=3), "only or exclude is 3"),  # type: ignore[arg-type]
        (lambda masks: pai_bench.prune(tiny(), batches(), "magnitude", exclude=[3]), "only or exclude is .3."),  # type: ignore[list-item]
        (lambda masks: pai_bench.prune(tiny(), batches(), "magnitude", sparsity=1 - 1e-9), "keeps none of the"),
        (lambda masks: pai_bench.prune(torch.jit.script(tiny()), batches(), "snip"), "modules of TorchScript"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(call: Callable[[dict[str, torch.Tensor]], object], cause: str) -> None:
    masks = pai_bench.prune(tiny(), batches(), "magnitude", sparsity=0.5)
    with pytest.raises(pai_bench.PaiBenchError, match=cause):
        call(masks)


def test_a_torch_file_of_other_objects_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "masks.pt"
    torch.save([np.ones((2, 2))], place)
    with pytest.raises(pai_bench.PaiBenchError, match="objects other than tensors"):
        pai_bench.load_masks(place, tiny())
