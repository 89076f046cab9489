"""Masks on a model: zeros at every forward pass whatever has written the weights, and their way off the model."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import pai_bench
from pai_bench.errors import PaiBenchError
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


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("copied", [False, True])
def test_pruned_weights_are_zero_at_the_next_forward_pass_whatever_wrote_them(writer: str, copied: bool) -> None:
    model = copy.deepcopy(masked()) if copied else masked()
    WRITERS[writer](model)
    F.cross_entropy(model(X), Y).backward()
    assert alive(model) == 0
    assert not any(bool(model.get_parameter(name).grad[~mask].any()) for name, mask in MASKS.items())
    kept = sum(int(model.get_parameter(name)[mask].count_nonzero()) for name, mask in MASKS.items())
    assert kept == sum(int(mask.sum()) for mask in MASKS.values())


@pytest.mark.parametrize("how", ["save", "bfloat16", "double", "compiled", "ema", "wrapped"])
def test_masks_survive_what_is_done_to_a_model(how: str) -> None:
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
    # Two forward passes, then one way back: the zeroing must not look like a change of what the first has saved.
    (model(x) + model(x)).float().sum().backward()


def test_masks_are_in_code_that_was_compiled_before_them() -> None:
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
    """As torch.nn.parallel.replicate makes them, which wants GPUs."""
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


def test_a_layer_that_is_called_by_itself_is_masked() -> None:
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
def test_functional_transforms_of_a_masked_model_are_refused_in_words(transform: str) -> None:
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


def test_what_torch_prunes_is_listed_and_not_pruned_twice() -> None:
    model = tiny()
    torch_prune.custom_from_mask(model.fc, "weight", MASKS["fc.weight"])
    assert torch.equal(pai_bench.masks_of(model)["fc.weight"], MASKS["fc.weight"])
    with pytest.raises(PaiBenchError, match=r"fc\.weight is pruned by torch\.nn\.utils\.prune") as caught:
        pai_bench.apply_masks(model, MASKS)
    assert "prune.remove" in caught.value.remedy
    other = masked()
    torch_prune.custom_from_mask(other.fc, "weight", MASKS["fc.weight"])
    with pytest.raises(PaiBenchError, match=r"fc\.weight has a mask, but .*prune"):
        other(X)


def test_an_export_is_refused_until_the_masks_are_permanent() -> None:
    model = masked().eval()
    with pytest.raises(PaiBenchError, match="export"):
        torch.export.export(model, (X,))
