"""Explanations and remedies for the reasons that squeue gives for pending jobs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Meaning of a pending reason, with a remedy where waiting does not help."""

    words: str
    remedy: str | None = None

    @property
    def stuck(self) -> bool:
        """True when the job stays pending until a person intervenes."""
        return self.remedy is not None


WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})
"""States of jobs that have not started, or not started again after a requeue."""
_HELD = frozenset({"REQUEUE_HOLD", "RESV_DEL_HOLD", "SPECIAL_EXIT"})

_RELEASE = "scontrol release {job}, or pai-bench cancel and sweep again; finished cells are kept"
_AGAIN = "pai-bench cancel, correct the profile, and sweep again"

# The first key that occurs in SLURM's text (ignoring case) is used, so specific keys come before general ones.
_KNOWN = {
    "launch failed requeued held": Reason("the node failed to start it, so SLURM requeued and held it", _RELEASE),
    "launch failure limit exceeded": Reason("nodes failed to start it too often, so SLURM held it", _RELEASE),
    "JobHoldMaxRequeue": Reason("SLURM has requeued it as often as the site allows, and held it", _RELEASE),
    "requeued in held state": Reason("it was requeued and held (scontrol requeuehold, or a failed start)", _RELEASE),
    "special exit": Reason("it was requeued and held after an exit code that the site treats specially", _RELEASE),
    "ReservationDeleted": Reason("its reservation was deleted, so SLURM held it", _RELEASE),
    "JobHeldAdmin": Reason("held by an administrator or by SLURM after a failed start", _RELEASE),
    "JobHeldUser": Reason("held by its user", _RELEASE),
    "user env retrieval failed": Reason("the node could not set up the user's environment", _RELEASE),
    "held": Reason("held", _RELEASE),
    "DependencyNeverSatisfied": Reason("it depends on a job that failed", "pai-bench cancel, and sweep again"),
    "Dependency": Reason("waiting for the job it depends on"),
    "PartitionTimeLimit": Reason("it requests more time than the partition allows", _AGAIN),
    "PartitionNodeLimit": Reason("it requests more nodes than the partition has", _AGAIN),
    "PartitionDown": Reason("the partition accepts no jobs at present"),
    "PartitionInactive": Reason("the partition starts no jobs at present"),
    "BadConstraints": Reason("no node has the resources that it requests", _AGAIN),
    "InvalidAccount": Reason("the account is not valid", _AGAIN),
    "InvalidQOS": Reason("the QOS is not valid", _AGAIN),
    "AccountNotAllowed": Reason("the account may not use this partition", _AGAIN),
    "QOSNotAllowed": Reason("the QOS may not be used in this partition", _AGAIN),
    "TimeLimit": Reason("it requests more time than its QOS or account allows", _AGAIN),
    "WallDurationPerJob": Reason("it requests more time than its QOS or account allows", _AGAIN),
    "PerJob": Reason("it requests more than its QOS or account allows a job", _AGAIN),
    "JobArrayTaskLimit": Reason("its array already runs the requested number of tasks at once"),
    "ReqNodeNotAvail": Reason("the nodes that could run it are down, drained or reserved"),
    "Nodes required for job are DOWN": Reason("the nodes that could run it are down, drained or reserved"),
    "Reservation": Reason("waiting for its reservation to begin"),
    "BeginTime": Reason("waiting for its earliest start (SLURM waits a while after a requeue)"),
    "Priority": Reason("waiting behind jobs of higher priority"),
    "Resources": Reason("next in line; waiting for free GPUs, cores or memory"),
    "Minutes": Reason("your account or QOS has used up its hours", "ask your administrator, or use another account"),
    "SubmitJob": Reason("your account or QOS accepts no more jobs"),
    "JobsPerUser": Reason("the QOS runs no more of your jobs at once"),
    "GRES": Reason("your account or QOS already uses all the GPUs that it may use at once"),
    "Cpu": Reason("your account or QOS already uses all the cores that it may use at once"),
    "Mem": Reason("your account or QOS already uses all the memory that it may use at once"),
    "Node": Reason("your account or QOS already uses all the nodes that it may use at once"),
    "Jobs": Reason("your account or QOS runs no more jobs at once"),
    "Licenses": Reason("waiting for a licence"),
    "Cleaning": Reason("its last attempt is being cleaned up"),
    "None": Reason("just submitted; not considered by the scheduler yet"),
}


def explain(reason: str, state: str = "PENDING") -> Reason:
    """Return the explanation of a reason from squeue; an unknown reason is quoted."""
    text = reason.strip("() ").casefold()
    found = next((meaning for word, meaning in _KNOWN.items() if word.casefold() in text), None)
    # A held job never starts by itself, whatever reason squeue shows.
    if state in _HELD and (found is None or not found.stuck):
        return Reason("it was requeued and held", _RELEASE)
    return found or Reason(f"SLURM's reason: {reason}")
