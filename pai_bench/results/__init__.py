"""The record of a finished cell, and the layout of the results root.

Each finished cell has one JSON file with its masks beside it. Files are written under a temporary name and renamed,
without locks, so that concurrent readers and writers on a shared file system never see a partial file. Temporary data
(claims, checkpoints, logs, notes) is stored below state/.
"""

from pai_bench.results.cleanup import drop_checkpoints, keep_checkpoints, tidy
from pai_bench.results.failures import UNREAD, Failure, clear_failure, has_failed, read_failure, write_failure
from pai_bench.results.key import ResultKey, excess
from pai_bench.results.paths import (
    ROOT_VARIABLE,
    beat_path,
    claims_folder,
    data_copy_path,
    duplicates_folder,
    failures_folder,
    fixed_masks_path,
    index_path,
    log_path,
    masks_path,
    name_of,
    names,
    resolve_root,
    result_paths,
    scores_folder,
    sweeps_folder,
    trainings_folder,
)
from pai_bench.results.plans import Plans, plan_name, plans, read_plans, write_plan
from pai_bench.results.record import (
    SCHEMA,
    STATUSES,
    DamagedResult,
    Epoch,
    Layer,
    Result,
    read,
    read_masks,
    read_plain,
)
from pai_bench.results.store import Delivery, deliver, present, set_aside, set_damaged_aside, state, write

__all__ = [
    "ROOT_VARIABLE",
    "SCHEMA",
    "STATUSES",
    "UNREAD",
    "DamagedResult",
    "Delivery",
    "Epoch",
    "Failure",
    "Layer",
    "Plans",
    "Result",
    "ResultKey",
    "beat_path",
    "claims_folder",
    "clear_failure",
    "data_copy_path",
    "deliver",
    "drop_checkpoints",
    "duplicates_folder",
    "excess",
    "failures_folder",
    "fixed_masks_path",
    "has_failed",
    "index_path",
    "keep_checkpoints",
    "log_path",
    "masks_path",
    "name_of",
    "names",
    "plan_name",
    "plans",
    "present",
    "read",
    "read_failure",
    "read_masks",
    "read_plain",
    "read_plans",
    "resolve_root",
    "result_paths",
    "scores_folder",
    "set_aside",
    "set_damaged_aside",
    "state",
    "sweeps_folder",
    "tidy",
    "trainings_folder",
    "write",
    "write_failure",
    "write_plan",
]
