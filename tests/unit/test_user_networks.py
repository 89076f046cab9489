"""Scoring, masks and measures on networks, data and settings of users."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import pai_bench
from pai_bench import models
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.effective import effective_masks
from pai_bench.pruning.flops import flops
from pai_bench.pruning.masking import MaskedGradients
from pai_bench.pruning.pruner import Pruner
from pai_bench.scoring import derivatives, registry
from pai_bench.scoring.problem import Problem, prunable

from .nets import BRIEF, batches, flat, tiny

METHODS = pytest.mark.parametrize("method", [name for name in pai_bench.list_methods() if name != "dense"])


def scores(model: nn.Module, method: str, data: object = None, **options: object) -> Tensor:
    return flat(pai_bench.score(model, data or batches(), method, **{**BRIEF.get(method, {}), **options}))  # type: ignore[arg-type]


class Attention(nn.Module):
    """Tokens of rows, torch's attention, and a position of its own that nothing else draws; 3x6x6 inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(18, 8)
        self.place = nn.Parameter(torch.randn(6, 8))
        self.norm = nn.LayerNorm(8)
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x.transpose(1, 2).flatten(2)) + self.place
        y = self.norm(x)
        return self.head((x + self.attend(y, y, y, need_weights=False)[0]).mean(1))


def normed(norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )


NORMS = {
    "none": nn.Identity,
    "batch": lambda: nn.BatchNorm2d(8),
    "batch without statistics": lambda: nn.BatchNorm2d(8, track_running_stats=False),
    "group": lambda: nn.GroupNorm(2, 8),
    "instance": lambda: nn.InstanceNorm2d(8, affine=True),
    "layer": lambda: nn.LayerNorm([8, 6, 6]),
}
EACH_NORM = pytest.mark.parametrize("norm", NORMS.values(), ids=list(NORMS))


# Random draws


def test_random_scores_are_independent_of_the_initial_weights() -> None:
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(100, 100, bias=False))
    finally:
        torch.set_default_dtype(before)
    drawn = pai_bench.score(model, [(torch.zeros(2, 100), torch.zeros(2).long())], "random", seed=0)["0.weight"]
    assert abs(np.corrcoef(drawn.flatten(), model[0].weight.detach().flatten())[0, 1]) < 0.05  # type: ignore[arg-type]


def test_redrawn_weights_are_independent_of_the_methods_draws() -> None:
    made: dict[str, Tensor] = {}

    def method(problem: Problem) -> dict[str, Tensor]:
        made["own"] = torch.randn(100, 100, generator=problem.generator, dtype=torch.float64)
        for name in ("first", "second"):
            problem.initialise(problem.model)
            made[name] = problem.model.get_parameter("0.weight").detach().clone()
        return {name: w.abs() for name, w in problem.weights.items()}

    model = nn.Sequential(nn.Linear(100, 100, bias=False))
    Pruner(model, [(torch.zeros(2, 100), torch.zeros(2))], method, name="mine", seed=0).score(0.5)
    rows = np.stack([made[name].flatten().abs().numpy() for name in ("own", "first", "second")])
    assert np.abs(np.corrcoef(rows) - np.eye(3)).max() < 0.05


@pytest.mark.slow
def test_draws_of_every_generator_are_repeated_in_the_backward_recursion(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chancy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x) * (1 + random.random() + np.random.rand())

    kept = scores(Chancy(), "prospr")
    monkeypatch.setattr(derivatives, "KEPT_GRAPHS", 0)
    assert torch.equal(scores(Chancy(), "prospr"), kept)


# Settings around a call


@pytest.mark.slow
@pytest.mark.parametrize("method", ["snip", "prospr", "px"])
def test_neither_autocast_nor_no_grad_nor_inference_mode_changes_scores(method: str) -> None:
    plain = scores(tiny(), method, dtype="float32")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(scores(tiny(), method, dtype="float32"), plain)
    with torch.no_grad():
        assert torch.equal(scores(tiny(), method, dtype="float32"), plain)
    model, data = tiny(), batches()
    with torch.inference_mode():
        assert torch.equal(scores(model, method, data, dtype="float32"), plain)


@pytest.mark.slow
@METHODS
def test_the_default_device_does_not_affect_draws(method: str) -> None:
    model, data = tiny(), batches()
    plain = pai_bench.prune(model, data, method, sparsity=0.5, **BRIEF.get(method, {}))
    with torch.device("meta"):
        there = pai_bench.prune(model, data, method, sparsity=0.5, **BRIEF.get(method, {}))
    assert torch.equal(flat(plain), flat(there))


@pytest.mark.slow
def test_a_compiled_model_has_the_scores_of_the_original() -> None:
    plain, compiled = tiny(), torch.compile(tiny(), backend="aot_eager")
    for method in ("grasp", "prospr"):
        assert torch.equal(scores(compiled, method), scores(plain, method))


@pytest.mark.slow
@METHODS
def test_masks_applied_earlier_do_not_affect_scoring(method: str) -> None:
    """A masked model is scored as one with these zeros."""
    masked = tiny()
    pai_bench.apply_masks(masked, pai_bench.prune(masked, batches(), "random", sparsity=0.5))
    zeros = tiny()
    zeros.load_state_dict(masked.state_dict())
    assert torch.equal(scores(masked, method), scores(zeros, method))


@pytest.mark.slow
def test_hyperparameters_and_seeds_may_be_numpy_values() -> None:
    plain = scores(tiny(), "prospr", seed=3, lr=0.1, steps=2)
    given = scores(tiny(), "prospr", seed=np.int64(3), lr=np.float64(0.1), steps=np.int32(2))
    assert torch.equal(plain, given)


# Networks


@pytest.mark.slow
@METHODS
def test_attention_and_its_position_are_scored(method: str) -> None:
    masks = pai_bench.prune(Attention(), batches(), method, sparsity=0.5, **BRIEF.get(method, {}))
    assert list(masks) == ["embed.weight", "attend.in_proj_weight", "attend.out_proj.weight", "head.weight"]
    assert int(flat(masks).sum()) == round(0.5 * flat(masks).numel())


@pytest.mark.slow
@METHODS
def test_tied_weights_count_once(method: str) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(108, 108), nn.Linear(108, 108), nn.Linear(108, 10)
            self.b.weight = self.a.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.b(F.relu(self.a(x.flatten(1))))))

    masks = pai_bench.prune(Tied(), batches(), method, sparsity=0.5, **BRIEF.get(method, {}))
    assert list(masks) == ["a.weight", "head.weight"]


@pytest.mark.slow
@METHODS
def test_a_stride_tuple_of_one_number_applies_to_both_dimensions(method: str) -> None:
    def net(stride: tuple[int, ...]) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Conv2d(3, 4, 3, stride=stride), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10))

    assert torch.equal(scores(net((2,)), method), scores(net((2, 2)), method))


@pytest.mark.slow
@METHODS
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_changes_no_score(method: str, reentrant: bool) -> None:
    class Net(nn.Module):
        def __init__(self, checkpointed: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b, self.checkpointed = nn.Conv2d(3, 4, 3), nn.Linear(4, 10), checkpointed

        def forward(self, x: Tensor) -> Tensor:
            x = checkpoint(self.block, x, use_reentrant=reentrant) if self.checkpointed else self.block(x)
            return self.b(x.mean((2, 3)))

        def block(self, x: Tensor) -> Tensor:
            return F.relu(self.a(x)) * F.dropout(torch.ones_like(x[:, :1, 1:-1, 1:-1]), training=self.training)

    with torch.random.fork_rng():
        assert torch.equal(scores(Net(True), method), scores(Net(False), method))


@pytest.mark.slow
def test_integer_parameters_and_other_state_are_unchanged() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = tiny()
            self.count = nn.Parameter(torch.tensor([3]), requires_grad=False)

        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None:
            del state

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

    assert torch.equal(scores(Odd(), "snip"), scores(tiny(), "snip"))


def _old_pruning() -> nn.Module:
    model = tiny()
    prune.l1_unstructured(model.conv2, "weight", 0.5)
    return model


def _holding_a_graph() -> nn.Module:
    model = tiny()
    model.seen = model(batches()[0][0])  # type: ignore[assignment]
    return model


@pytest.mark.parametrize(
    ("model", "cause", "remedy"),
    [
        (lambda: nn.Sequential(parametrizations.weight_norm(nn.Linear(108, 10))), "layer 0 is computed", "remove"),
        (_old_pruning, "layer conv2 is computed", "prune.remove"),
        (lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)), "layer 1 has no weight yet", "call the model once"),
        (_holding_a_graph, "TinyNet cannot be copied", "keep no activations"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_scored_are_refused(model: Callable[[], nn.Module], cause: str, remedy: str) -> None:
    with pytest.raises(PaiBenchError, match=cause) as caught:
        pai_bench.prune(model(), batches(), "snip")
    assert remedy in caught.value.remedy


class Ending(nn.Module):
    """A small network whose logits pass through another function."""

    def __init__(self, end: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.end = tiny(), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))


@pytest.mark.parametrize(
    ("end", "methods", "cause", "remedy"),
    [
        (lambda o: o.argmax(1), ("snip", "synflow", "px"), "the model returns int64 numbers", "the logits, not the"),
        (lambda o: o.cfloat(), ("snip", "synflow", "ntk-sap"), "the model returns complex64 numbers", "real part"),
        (lambda o: o.detach(), ("snip", "grasp", "prospr", "px"), "outputs of the model have no gradient", "detach()"),
        (torch.inference_mode()(lambda o: o * 2), ("snip",), "outputs of the model have no gradient", "inference_mode"),
        (lambda o: o[:, None], ("snip", "grasp"), "cross entropy needs logits", "return logits [B, classes]"),
        (lambda o: o.softmax(1), ("px",), "the model computes a softmax outside of attention", "ReLU"),
    ],
)
def test_outputs_that_are_no_logits_are_refused(
    end: Callable[[Tensor], Tensor], methods: tuple[str, ...], cause: str, remedy: str
) -> None:
    for method in methods:
        with pytest.raises(PaiBenchError, match=cause) as caught:
            pai_bench.prune(Ending(end), batches(), method)
        assert remedy in caught.value.remedy


@pytest.mark.parametrize("function", [F.log_softmax, torch.log_softmax, Tensor.log_softmax, torch.special.log_softmax])
def test_px_leaves_out_a_log_softmax_at_the_end(function: Callable[..., Tensor]) -> None:
    found = scores(Ending(lambda o: function(o, 1)), "px")
    assert torch.equal(found, scores(Ending(lambda o: o), "px"))


def test_px_refuses_a_softmax_that_is_an_activation() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.Softmax2d(), nn.Flatten(), nn.LazyLinear(10)]
    model = nn.Sequential(*layers)
    model(batches()[0][0])
    with pytest.raises(PaiBenchError, match="layer 1 computes a softmax outside of attention"):
        pai_bench.prune(model, batches(), "px", rounds=1)


class SharedModule(nn.Module):
    """A layer under two names (as in CoaT), and a parameter of two layers; `names` is 1 for the layer under one."""

    def __init__(self, names: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle = nn.Linear(108, 12), nn.Linear(12, 12)
        self.blocks = nn.ModuleList([self.middle] if names == 2 else [])
        self.tied, self.last = nn.Linear(12, 12), nn.Linear(12, 10)
        self.tied.weight = self.middle.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.first(x.flatten(1)).relu()).relu()
        return self.last(self.tied(self.middle(x).relu()).relu())


@pytest.mark.slow
@METHODS
def test_a_module_under_two_names_is_scored_as_under_one(method: str) -> None:
    options = {**BRIEF.get(method, {}), "sparsity": 0.5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pai_bench.TiedScoresWarning)
        one, two = (pai_bench.prune(SharedModule(names), batches(), method, **options) for names in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one) and one.keys() == two.keys()


class Caching(nn.Module):
    """Network that, with `keeps`, stores tensors computed from its parameters in eval mode, as LeViT does."""

    def __init__(self, keeps: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.head, self.keeps = tiny(), nn.Linear(10, 10), keeps
        self.bias = nn.Parameter(torch.randn(10))
        self.cache: dict[str, Tensor] = {}
        self.seen: list[Tensor] = []
        self.scale: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training or not self.keeps:
            bias, scale = self.bias * 2, self.head.weight[:, 0]
        else:
            if self.scale is None:
                self.cache["bias"], self.scale, self.last = self.bias * 2, self.head.weight[:, 0], x
            bias, scale = self.cache["bias"], self.scale
        out: Tensor = self.head(self.net(x)) * scale + bias
        self.seen.append(out)
        return out


@pytest.mark.slow
@METHODS
def test_tensors_that_a_network_keeps_between_passes_do_not_affect_scores(method: str) -> None:
    kept, plain = Caching(True), Caching(False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pai_bench.TiedScoresWarning)
        assert torch.equal(scores(kept, method), scores(plain, method))
    assert kept.cache == {} and kept.scale is None and kept.seen == []


class Rotary(nn.Module):
    """A layer whose features are turned by a complex buffer, as in the position embeddings of Llama."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(108, 16), nn.Linear(16, 10)
        angles = torch.linspace(0, 3, 8)
        self.register_buffer("turns", torch.polar(torch.ones(8), angles).to(kind))

    def forward(self, x: Tensor) -> Tensor:
        pairs = torch.view_as_complex(self.first(x.flatten(1)).view(-1, 8, 2))
        return self.last(torch.view_as_real(pairs * self.turns).flatten(1))


def test_complex_buffers_keep_their_imaginary_part_and_complex_weights_are_refused() -> None:
    model = Rotary(torch.complex64)
    ours = dict(pai_bench.score(model, batches(), "snip"))
    twin = copy.deepcopy(model).double()
    twin.turns = model.turns.to(torch.complex128)
    data = [(x.double(), y) for x, y in batches()]
    loss = torch.stack([F.cross_entropy(twin(x), y) for x, y in data]).mean()
    expected = torch.autograd.grad(loss, [twin.first.weight, twin.last.weight])
    for name, weight, gradient in zip(ours, (twin.first.weight, twin.last.weight), expected, strict=True):
        torch.testing.assert_close(ours[name] / ours[name].sum(), (w := (weight * gradient).abs()) / w.sum())
    with (
        pytest.warns(UserWarning, match="Complex modules are a new feature"),
        pytest.raises(PaiBenchError, match=r"conv1\.weight has complex weights \(complex64\)"),
    ):
        pai_bench.prune(tiny().to(torch.complex64), batches(), "random")


@pytest.mark.parametrize("method", ["snip", "prospr", "grasp"])
def test_embeddings_with_sparse_gradients_are_scored_as_others(method: str) -> None:
    def tokens(sparse: bool) -> Tensor:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(9, 6, sparse=sparse), nn.Flatten(), nn.Linear(30, 10))
        data = [(torch.arange(20).view(4, 5) % 9, torch.arange(4))] * 4
        found = pai_bench.score(model, data, method)
        assert model[0].sparse is sparse
        return torch.cat([v.flatten() for v in found.values()])

    assert torch.equal(tokens(True), tokens(False))


# Data


class Endless(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> object:
        return iter([(x[0], y[0]) for x, y in batches(12)])


def test_a_stream_has_no_length() -> None:
    masks = pai_bench.prune(tiny(), DataLoader(Endless(), batch_size=4), "force", rounds=3, sparsity=0.5)
    assert int(flat(masks).sum()) == 241


@pytest.mark.parametrize("kind", [torch.int32, torch.int16, torch.uint8])
def test_class_indices_of_any_integer_type_are_accepted(kind: torch.dtype) -> None:
    assert torch.equal(scores(tiny(), "snip", [(x, y.to(kind)) for x, y in batches()]), scores(tiny(), "snip"))


X, Y = batches()[0]


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        ((batch for batch in batches()), "generator, which can be read only once"),
        ([(X, Y, Y)], r"\['Tensor', 'Tensor', 'Tensor'\]"),
        ((X, Y), "a scoring batch is Tensor"),
        ([{"x": X, "y": Y}], "a scoring batch is dict"),
        ([(X.numpy(), Y.numpy())], "ndarray"),
        ([(X.to(torch.uint8), Y)], "uint8 images"),
        ([(X, Y[:, None])], r"targets \[12, 1\]"),
        ([(X[:0], Y[:0])], "it has no samples"),
        (TensorDataset(X, Y), "it is a single sample"),
        ([(X.to("meta"), Y)], "on the meta device"),
        ([(X, Y.to("meta"))], "on the meta device"),
        ([(X, Y[:5])], r"inputs \[12, 3, 6, 6\] and targets \[5\]"),
    ],
)
def test_invalid_batches_are_refused(data: object, cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause):
        pai_bench.score(tiny(), data, "snip")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["ntk-sap", "px"])
def test_methods_with_inputs_of_their_own_require_real_numbers(method: str) -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Flatten(), nn.Linear(12, 3))
    with pytest.raises(PaiBenchError, match=f"{method} needs inputs of real numbers, not torch.int64"):
        pai_bench.score(model, [(torch.ones(2, 3).long(), torch.zeros(2).long())], method)


@pytest.mark.slow
def test_scores_that_are_not_finite_are_refused_with_a_remedy() -> None:
    for dtype in ("float64", "float32"):
        with pytest.raises(PaiBenchError, match="not finite") as caught:
            pai_bench.score(tiny(), batches(), "prospr", lr=float("nan"), dtype=dtype)
        assert ("score in float64" in caught.value.remedy) == (dtype == "float32") and "lower lr" in caught.value.remedy


# Methods


@pytest.mark.parametrize(
    ("method", "options", "cause"),
    [
        ("snip", {"bn": "foo"}, "snip:bn must be 'train' or 'eval', not 'foo'"),
        ("grasp", {"bn": "foo"}, "grasp:bn must be"),
        ("grasp", {"temperature": 0}, "grasp:temperature must be more than 0, not 0"),
        ("grasp", {"temperature": float("inf")}, "not inf"),
        ("ntk-sap", {"repeats": 0}, "ntk-sap:repeats must be more than 0"),
        ("ntk-sap", {"epsilon": 0.0}, "ntk-sap:epsilon must be more than 0"),
        ("synflow", {"rounds": 0}, "rounds must be at least 1, not 0"),
        ("force", {"schedule": "foo"}, "schedule must be 'exponential' or 'linear'"),
        ("prospr", {"variant": "half"}, "prospr:variant must be"),
    ],
)
def test_invalid_values_are_refused_before_scoring(method: str, options: dict[str, object], cause: str) -> None:
    with pytest.raises(PaiBenchError, match=cause):
        registry.get(method, options)


@pytest.mark.parametrize(
    ("quotas", "cause"),
    [
        ({"conv1.weight": 100, "conv2.weight": 151, "fc.weight": -10}, "cannot be"),
        ({"conv1.weight": 170, "conv2.weight": 34, "fc.weight": 37}, "of 162 weights that may be kept, 170 cannot"),
        ({"conv1.weight": 141, "conv2.weight": 100}, "quotas for conv1.weight, conv2.weight"),
    ],
)
def test_quotas_that_cannot_be_met_are_errors(quotas: dict[str, int], cause: str) -> None:
    class Mine:
        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            return {name: w.abs() for name, w in problem.weights.items()}

        def quotas(self, problem: Problem) -> dict[str, int]:
            return quotas

    with pytest.raises(ValueError, match=cause):
        Pruner(tiny(), batches(), Mine(), name="mine").masks(0.5)


def test_a_method_may_not_replace_parameters_of_its_model() -> None:
    class Mine:
        rounds = 2

        def __call__(self, problem: Problem) -> dict[str, Tensor]:
            found = {name: w.abs() for name, w in problem.weights.items()}
            problem.model.fc.weight = nn.Parameter(torch.ones(10, 5))
            return found

    with pytest.raises(PaiBenchError, match="mine has replaced parameters"):
        Pruner(tiny(), batches(), Mine(), name="mine").masks(0.5)


def test_hyper_parameters_with_the_default_none_accept_the_values_of_their_class() -> None:
    @dataclass(frozen=True)
    class Optional:
        opt: float | None = None

    registry._given["optional"] = Optional
    try:
        assert registry.get("optional", {"opt": 0.5}).opt == 0.5  # type: ignore[attr-defined]
        assert registry.get("optional").opt is None  # type: ignore[attr-defined]
    finally:
        del registry._given["optional"]


@EACH_NORM
def test_px_omits_norms_except_in_its_gates(norm: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = normed(norm())
    exact = copy.deepcopy(model).double().eval()
    first, last = exact[0].weight.detach(), exact[5].weight.detach()
    h = torch.zeros(10, dtype=torch.float64)
    for x, _ in batches():
        gates = exact[:2](x.double()) > 0
        reached = F.conv2d(x.double() ** 2, torch.ones_like(first), padding=1) * gates
        h += (reached.mean((2, 3)) @ torch.ones_like(last).T).sum(0)
    squares = [(w**2).requires_grad_() for w in (first, last)]
    ones = torch.ones(1, 3, 6, 6, dtype=torch.float64)
    g = F.conv2d(ones, squares[0], padding=1).mean((2, 3)) @ squares[1].T
    slopes = torch.autograd.grad((g * h / h.max()).sum(), squares)
    expected = torch.cat([(w.detach() * s).flatten() for w, s in zip(squares, slopes, strict=True)])
    assert torch.allclose(scores(model, "px", rounds=1), expected, rtol=1e-12, atol=0)


@pytest.mark.slow
def test_px_detects_in_place_relus_whose_value_is_not_used() -> None:
    class Net(nn.Module):
        def __init__(self, relu: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.a, self.b, self.relu = nn.Conv2d(3, 6, 3), nn.Linear(6, 10), relu

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            new = self.relu(x)
            return self.b((x if new is None else new).mean((2, 3)))

    def unused(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], None]:
        def relu(x: Tensor) -> None:
            call(x)

        return relu

    torch.manual_seed(0)
    plain = Net(F.relu)
    expected = scores(plain, "px", rounds=1)
    for relu in (Tensor.relu_, lambda x: F.relu(x, inplace=True), nn.ReLU(inplace=True), torch.relu_):
        model = Net(unused(relu))  # type: ignore[arg-type]
        model.load_state_dict(plain.state_dict())
        assert torch.equal(scores(model, "px", rounds=1), expected)


# Masks on a model


@pytest.mark.slow
def test_masks_survive_a_copy_if_a_layers_forward_is_not_called() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.fc = Attention(), nn.Linear(10, 10)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.attention(x), self.fc.weight)

    model = Direct()
    masks = pai_bench.prune(model, batches(), "random", sparsity=0.5)
    pai_bench.apply_masks(model, masks)
    for one in (model, copy.deepcopy(model), copy.deepcopy(copy.deepcopy(model))):
        optimiser = torch.optim.SGD(one.parameters(), lr=0.1, momentum=0.9)
        for x, y in batches():
            optimiser.zero_grad()
            F.cross_entropy(one(x), y).backward()
            optimiser.step()
        assert not any(bool(w[~masks[name]].any()) for name, w in prunable(one).items())


def test_a_layer_that_the_output_does_not_depend_on_has_no_gradient_to_mask() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(108, 10), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x.flatten(1))

    model = Unused()
    masks = {name: torch.rand_like(w) > 0.5 for name, w in prunable(model).items()}
    masked = MaskedGradients(model, masks)
    F.cross_entropy(model(X), Y).backward()
    masked()
    assert model.unused.weight.grad is None and masked.intact()
    assert not model.used.weight.grad[~masks["used.weight"]].any()


# Measures


def all_kept(model: nn.Module) -> dict[str, Tensor]:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


@EACH_NORM
def test_norms_do_not_interrupt_paths(norm: Callable[[], nn.Module]) -> None:
    model = normed(norm())
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 6, 6)).values())
    model = Attention()
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 6, 6)).values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg-d", "vgg16-bn-tinyimagenet", "vgg11-bn", "conv6-bn"])
def test_a_max_pool_of_equal_values_does_not_interrupt_paths(name: str) -> None:
    model = models.build(name, 3, 32, 10)
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 32, 32)).values())


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(2), nn.MaxPool2d(3, 1, padding=1), nn.MaxPool2d(2, ceil_mode=True), nn.AdaptiveMaxPool2d(2)],
    ids=repr,
)
def test_every_pixel_under_a_pool_is_on_a_path(pool: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 5, padding=2, bias=False), pool, nn.Flatten(), nn.LazyLinear(2))
    model(torch.ones(1, 1, 5, 5))
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (1, 5, 5)).values())


def test_frozen_weights_are_measured_too() -> None:
    model = tiny().requires_grad_(False)
    assert all(mask.all() for mask in effective_masks(model, all_kept(model), (3, 6, 6)).values())


def test_flops_of_attention_count_all_its_weights() -> None:
    model = Attention()
    masks = all_kept(model)
    masks["attend.out_proj.weight"][:4] = False
    # Six tokens: embedding, queries, keys and values, the attention's last layer, head of their mean.
    rest = 6 * 144 + 6 * 3 * 64 + 80
    assert flops(model, masks, (3, 6, 6)) == (2 * (rest + 6 * 64), 2 * (rest + 6 * 32))
