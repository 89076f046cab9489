"""The place where a sweep runs: here or on SLURM; an option that has no effect there is refused or named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.sweep.slurm import profiles
from pai_bench.sweep.slurm.command import Options, reachable
from pai_bench.sweep.slurm.controller import installed

PLACES = ("auto", "local", "slurm", "debug")


@dataclass(frozen=True)
class Given:
    """Where the options that only one place knows were given."""

    typed: tuple[str, ...] = ()
    """SLURM's options on the command line, by their long names."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """SLURM's options in the environment or in a file, by long name, and that source in words."""
    where: str = "default"
    """The source of --where in words."""
    typed_here: tuple[str, ...] = ()
    """Options on the command line that only a sweep on this machine knows."""


@dataclass(frozen=True)
class Place:
    """The place of a sweep, and what its user should know of it."""

    name: str
    """"local", "slurm" or "debug"."""
    notes: tuple[str, ...] = ()


def choose(where: str, slurm: Options, given: Given) -> Place:
    """Choose the place of a sweep.

    An option of SLURM's on the command line implies `--where slurm`, and is refused where that is impossible or another
    place is asked for. In the environment or a file it is a default: unused on this machine, which a note says where
    `auto` has chosen this machine.

    Raises: PaiBenchError for an unknown place, for options of SLURM's that cannot be used, and for a typed profile or
        value of a profile that is not valid, wherever the sweep runs.
    """
    if where not in PLACES:
        raise unknown("place", where, PLACES)
    options = " and ".join(given.typed)
    if {"--profile", "--slurm"} & set(given.typed):
        profiles.load(slurm.profile or profiles.DEFAULT, slurm.settings)
    if given.typed and where in ("local", "debug"):
        raise PaiBenchError(
            f"{options} can only be used on SLURM, and --where is {where} ({given.where})",
            "leave it out, or write --where slurm",
        )
    if given.typed and where == "auto" and not installed():
        raise PaiBenchError(
            f"{options} can only be used on SLURM, and sbatch and squeue are not here",
            "run it on a login node (with SLURM's module loaded), or leave it out to run on this machine",
        )
    if where == "slurm" or given.typed or (where == "auto" and reachable()):
        unused = " and ".join(given.typed_here)
        return Place("slurm", (f"{unused} has no effect on SLURM's tasks",) if unused else ())
    if where == "auto" and given.elsewhere:
        sources = ", ".join(f"--{name} ({source})" for name, source in given.elsewhere.items())
        return Place(
            "local", (f"runs on this machine, for SLURM is not set up here or this is a job of it; unused: {sources}",)
        )
    return Place("debug" if where == "debug" else "local")
