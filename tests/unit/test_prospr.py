"""ProsPr's walk back over the stored parameters is the derivative through all inner steps."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import pai_bench
from pai_bench.core.randomness import derive_seed
from pai_bench.scoring import derivatives
from pai_bench.scoring.derivatives import gradient, in_one_block, saved_bytes
from tests.unit.nets import batches, flat, tiny
from tests.unrolling import unrolled_prospr


@pytest.fixture(params=["kept", "made-again"], autouse=True)
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that is tested holds with the graphs of the inner steps kept for the way back, and made again."""
    if request.param == "made-again":
        monkeypatch.setattr(derivatives, "KEPT_GRAPHS", 0)


class Idle(nn.Module):
    """A network with a parameter that no output depends on: its gradient has no graph."""

    def __init__(self) -> None:
        super().__init__()
        self.net = tiny()
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)  # type: ignore[no-any-return]


class Attending(nn.Module):
    """Attention over pixels, whose fast kernels cannot be differentiated twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.read = nn.Linear(3, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x.flatten(2).transpose(1, 2)).unsqueeze(1)
        mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return self.read(mixed.mean((1, 2)))  # type: ignore[no-any-return]


def difference(model: nn.Module, data: list[tuple[torch.Tensor, torch.Tensor]], steps: int, **options: object) -> float:
    """Return the relative difference between our meta-gradients and plain unrolling, over all weights."""
    ours = pai_bench.score(model, data, "prospr", steps=steps, lr=0.1, seed=5, **options)
    first_order = options.pop("variant", "full") == "first_order"
    used = data[: steps + 1] if options.pop("new_batches", True) else data[:1] * (steps + 1)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(5, "method"))
        theirs = unrolled_prospr(model, used, lr=0.1, first_order=first_order, **options)  # type: ignore[arg-type]
    return float((flat(ours) - flat({n: theirs[n] for n in ours})).norm() / flat(ours).norm())


@pytest.mark.slow
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("new_batches", [True, False])
@pytest.mark.parametrize("norm", [True, False])
def test_prospr_equals_unrolling(steps: int, momentum: float, detach: bool, new_batches: bool, norm: bool) -> None:
    options = {"momentum": momentum, "detach_first_buffer": detach, "new_batches": new_batches}
    assert difference(tiny(norm=norm), batches(6), steps, **options) < 1e-12


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_first_order_equals_plain_unrolling(momentum: float) -> None:
    assert difference(tiny(), batches(), 3, momentum=momentum, variant="first_order") < 1e-12


@pytest.mark.slow
def test_attention_is_differentiated_twice() -> None:
    torch.manual_seed(0)
    with sdpa_kernel(SDPBackend.MATH):  # which plain unrolling has to be told
        assert difference(Attending(), batches(), 3) < 1e-12
    data = [(x.double(), y) for x, y in batches()]
    assert all(torch.isfinite(s).all() for s in pai_bench.score(Attending(), data, "grasp").values())


@pytest.mark.slow
def test_dropout_is_repeated_in_the_backward_recursion() -> None:
    assert difference(tiny(dropout=0.5), batches(), 3) < 1e-12


@pytest.mark.slow
def test_a_parameter_without_a_graph_is_skipped() -> None:
    assert difference(Idle(), batches(), 3) < 1e-12


@pytest.mark.slow
def test_graphs_are_kept_up_to_the_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[int] = []
    model, data = tiny(), [(x.double(), y) for x, y in batches(6)]
    model.register_forward_hook(lambda *_: passes.append(1))

    def passes_with(room: int) -> int:
        monkeypatch.setattr(derivatives, "KEPT_GRAPHS", room)
        passes.clear()
        pai_bench.score(model, data, "prospr", steps=5)
        return len(passes)

    with saved_bytes() as size:
        theta = {name: p.double().requires_grad_() for name, p in model.named_parameters()}
        x, y = data[0]
        gradient(
            lambda: nn.functional.cross_entropy(torch.func.functional_call(model.double(), theta, (x,)), y),
            list(theta.values()),
            graph=True,
        )
    # Six passes there, and one more on the way back for each of the five steps whose graph is gone.
    assert [passes_with(int(share * size())) for share in (0, 0.5, 1.5, 3.5, 5.5)] == [11, 11, 10, 8, 6]


def test_stored_parameters_of_all_steps_share_one_block() -> None:
    shapes = [(2, 3), (4,), ()]
    rows = list(in_one_block([torch.zeros(shape, dtype=torch.float64) for shape in shapes], 3))
    assert [[tuple(part.shape) for part in row] for row in rows] == 3 * [shapes]
    parts = [part for row in rows for part in row]
    assert len({part.untyped_storage().data_ptr() for part in parts}) == 1
    for number, part in enumerate(parts):
        part.fill_(number)
    assert [float(part.max()) for part in parts] == [float(part.min()) for part in parts] == list(range(9))
    assert not list(in_one_block([torch.zeros(2)], -1))
