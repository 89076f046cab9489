"""Controls: changes of a method's masks or weights that separate the causes of its accuracy.

The ablations of Frankle et al. 2021 (arXiv 2009.08576) and Su et al. 2020 (arXiv 2009.11094):

shuffle  Every layer's mask is permuted at random: the share of each layer stays, which weights it is does not.
reinit   The masks stay as they are, and the weights that train are drawn again.
invert   In every round the lowest scores are kept.

and three more:

sample    In every round the scores are weights of sampling without replacement. (A mask as a sketching matrix keeps
          weights with probabilities: Bar and Giryes 2023, arXiv 2305.17559.)
quota-of  Random masks with the layer counts of the method: another draw of what shuffle draws.
unstructured  With another granularity than "weight": single weights, as many in each layer as its masks keep.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pai_bench.cells import QUOTA_OF, UNSTRUCTURED, MethodSpec
from pai_bench.core.randomness import derive_seed
from pai_bench.errors import PaiBenchError
from pai_bench.pruning.selection import Sampling, Select, keep_exactly, keep_lowest
from pai_bench.pruning.targets import PLAIN


def selection(spec: MethodSpec, seed: int) -> Select:
    """Return the selection rule of the pruning rounds; the rule of `sample` draws by the seed and is for one use."""
    if spec.control == "sample":
        return Sampling(derive_seed(seed, "sample"))
    return keep_lowest if spec.control == "invert" else keep_exactly


def by_weight(spec: MethodSpec) -> bool:
    """Return True if single weights are kept with the layer counts of another granularity."""
    return spec.control == UNSTRUCTURED


def check(spec: MethodSpec, granularity: str) -> None:
    """Check that a control changes masks of that granularity.

    Raises: PaiBenchError for single weights in the place of single weights.
    """
    if by_weight(spec) and granularity == PLAIN.granularity:
        raise PaiBenchError(
            f"the control {UNSTRUCTURED} replaces units by single weights, and the masks of {spec.name} keep single"
            " weights already",
            "choose a granularity, as in --granularity channel, or leave the control out",
        )


def own_rounds(spec: MethodSpec) -> str:
    """Return the control if it changes what the rounds of an iterative method keep; empty for all others."""
    return spec.control if spec.control in ("invert", "sample", UNSTRUCTURED) else ""


def weights_purpose(spec: MethodSpec) -> str:
    """Return the purpose (see `derive_seed`) of the draws of the weights that train."""
    # The scored weights keep the purpose "init", so that the masks are those of the method without a control.
    return "reinit" if spec.control == "reinit" else "init"


def applied(spec: MethodSpec, masks: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Return the masks to train with. Permutations are drawn on the CPU, independent of the masks' device.

    Both are bool by parameter name. A permutation of a layer depends on the seed and on its place in the network, so
    that all methods are shuffled alike.
    """
    if spec.control not in ("shuffle", QUOTA_OF):
        return dict(masks)
    return {name: _permuted(mask, derive_seed(seed, spec.control, n)) for n, (name, mask) in enumerate(masks.items())}


def _permuted(mask: Tensor, seed: int) -> Tensor:
    order = torch.randperm(mask.numel(), generator=torch.Generator().manual_seed(seed), device="cpu")
    return mask.flatten()[order.to(mask.device)].view_as(mask)
