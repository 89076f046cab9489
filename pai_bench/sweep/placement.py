"""Choice of the place where a sweep runs (this machine or SLURM); unusable options are refused or reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pai_bench.errors import PaiBenchError, unknown
from pai_bench.sweep.slurm import profiles
from pai_bench.sweep.slurm.command import Options, reachable
from pai_bench.sweep.slurm.controller import installed

PLACES = ("auto", "local", "slurm", "debug")


@dataclass(frozen=True)
class Sources:
    """Sources of the options that have an effect in one place only."""

    typed: tuple[str, ...] = ()
    """Long names of SLURM options given on the command line."""
    elsewhere: Mapping[str, str] = field(default_factory=dict)
    """Long names of SLURM options set in the environment or a file, with a description of the source."""
    where: str = "default"
    """Description of the source of --where."""
    typed_here: tuple[str, ...] = ()
    """Options on the command line that affect only a sweep on this machine."""


@dataclass(frozen=True)
class Place:
    """The place of a sweep, with notes for its user."""

    name: str
    """"local", "slurm" or "debug"."""
    notes: tuple[str, ...] = ()


def choose(where: str, slurm: Options, given: Sources) -> Place:
    """Choose the place of a sweep.

    A SLURM option on the command line implies `--where slurm`; it is refused if SLURM is unavailable or another place
    is requested. In the environment or a file it is a default, which a sweep on this machine ignores; a note reports
    this if `auto` has chosen this machine.

    Raises: PaiBenchError for an unknown place, for SLURM options that cannot be used, and, wherever the sweep runs,
        for an invalid profile or profile value on the command line.
    """
    if where not in PLACES:
        raise unknown("place", where, PLACES)
    options = " and ".join(given.typed)
    if {"--profile", "--slurm"} & set(given.typed):
        profiles.load(slurm.profile or profiles.DEFAULT, slurm.settings)
    if given.typed and where in ("local", "debug"):
        raise PaiBenchError(
            f"{options} can only be used on SLURM, and --where is {where} ({given.where})",
            "omit it, or add --where slurm",
        )
    if given.typed and where == "auto" and not installed():
        raise PaiBenchError(
            f"{options} can only be used on SLURM, but sbatch and squeue were not found on PATH",
            "run the command on a login node (with SLURM's module loaded), or omit it to run on this machine",
        )
    # reachable() comes last, because it queries the controller.
    if where == "slurm" or given.typed or (where == "auto" and reachable()):
        unused = " and ".join(given.typed_here)
        return Place("slurm", (f"{unused} has no effect on SLURM's tasks",) if unused else ())
    if where == "auto" and given.elsewhere:
        sources = ", ".join(f"--{name} ({source})" for name, source in given.elsewhere.items())
        return Place(
            "local", (f"runs on this machine, for SLURM is not set up here or this is a job of it; unused: {sources}",)
        )
    return Place("debug" if where == "debug" else "local")
