"""Everything that the author of a method sees: the problem, registration, exact derivatives, and layer budgets."""

from pai_bench.core.facts import Facts
from pai_bench.scoring.convolutions import ChunkedConvolutions
from pai_bench.scoring.derivatives import Graphs, gradient, hessian_product, in_one_block
from pai_bench.scoring.draws import gaussian, rademacher, random_scores
from pai_bench.scoring.function_overrides import IDENTITY_NORMS, FunctionOverrides
from pai_bench.scoring.gates import Relus, noting
from pai_bench.scoring.kernel_counts import kernel_counts
from pai_bench.scoring.layer_budgets import apportion, erdos_renyi_kernel, erk_quotas, proportional, uniform, within
from pai_bench.scoring.mask_updates import (
    Length,
    MaskChange,
    Moment,
    Rewinding,
    cosine,
    cubic,
    geometric,
    within_training,
)
from pai_bench.scoring.paths.functions import Flow, PathCount
from pai_bench.scoring.paths.in_order import Inputs, choose_in_order
from pai_bench.scoring.paths.law import check_factors, check_law, check_routes
from pai_bench.scoring.paths.network import replay
from pai_bench.scoring.paths.walks import Walker
from pai_bench.scoring.problem import Batch, Batches, Problem, Scorer, more_than, one_of, prunable, ranked, real_inputs
from pai_bench.scoring.registry import register
from pai_bench.scoring.relu_networks import check_relu_network
from pai_bench.scoring.searching import Search, straight_through
from pai_bench.scoring.transforms import check_outside_vmap

__all__ = [
    "IDENTITY_NORMS",
    "Batch",
    "Batches",
    "ChunkedConvolutions",
    "Facts",
    "Flow",
    "FunctionOverrides",
    "Graphs",
    "Inputs",
    "Length",
    "MaskChange",
    "Moment",
    "PathCount",
    "Problem",
    "Relus",
    "Rewinding",
    "Scorer",
    "Search",
    "Walker",
    "apportion",
    "check_factors",
    "check_law",
    "check_outside_vmap",
    "check_relu_network",
    "check_routes",
    "choose_in_order",
    "cosine",
    "cubic",
    "erdos_renyi_kernel",
    "erk_quotas",
    "gaussian",
    "geometric",
    "gradient",
    "hessian_product",
    "in_one_block",
    "kernel_counts",
    "more_than",
    "noting",
    "one_of",
    "proportional",
    "prunable",
    "rademacher",
    "random_scores",
    "ranked",
    "real_inputs",
    "register",
    "replay",
    "straight_through",
    "uniform",
    "within",
    "within_training",
]
