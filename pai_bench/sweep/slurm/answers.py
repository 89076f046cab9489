"""Classification of sbatch's output: job accepted, job refused, or outcome unknown.

A reply can be lost after the controller has accepted the job ("Socket timed out"). A failure of sbatch therefore
counts as a refusal only where its message is an explicit refusal.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence

from pai_bench.errors import PaiBenchError

SBATCH_SECONDS = 300.0
"""Time limit of one call of sbatch, which itself retries for about 120 s while the controller is full."""
LONGEST = 500
"""Maximum number of characters quoted from sbatch's messages."""

_TAKEN = re.compile(r"Submitted batch job ([1-9]\d*)\b")
_PARSABLE = re.compile(r"^([1-9]\d*)(?:;\S+)?\s*$", re.MULTILINE)
_FAILED = "Batch job submission failed: "
# Messages after which the job may be queued: the request or its reply was lost in transit.
_LOST = re.compile(
    r"timed[ -]out|time-?out|zero bytes|send/recv|receiv|transmi|communicat|broken pipe|reset by peer|aborted"
    r"|(?:send|shutdown) failure|transport endpoint|unexpected message|protocol|authenticat|credential|munge"
    r"|unspecified error",
    re.IGNORECASE,
)
_SENT = re.compile(r"(?:send|receive|shutdown) failure", re.IGNORECASE)
_TOO_LONG = ("Invalid job array specification",)
_TOO_MANY = ("AssocMaxSubmitJobLimit", "QOSMaxSubmitJob", "MaxSubmitJobs", "Job violates accounting/QOS policy")
_FULL = ("Resource temporarily unavailable", "temporarily unable to accept job")
_ABSENT = ("Unable to contact slurm controller", "Connection refused", "in standby mode")
_NOISE = ('Try "sbatch --help"', "Usage:")


class Refused(Exception):
    """Refusal by sbatch with its message: no job was created."""

    def __init__(self, words: str) -> None:
        super().__init__(words)
        self.too_large = any(word in words for word in (*_TOO_LONG, *_TOO_MANY))
        """True when SLURM may accept a smaller chunk."""
        self.passing = any(word in words for word in (*_TOO_MANY, *_FULL, *_ABSENT))
        """True when SLURM may accept the same chunk later."""


class Unanswered(Exception):
    """Unknown outcome of sbatch: its message, or its exit status, does not show if a job was created."""


def sbatch(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    script: str | None = None,
    seconds: float = SBATCH_SECONDS,
) -> tuple[str, str]:
    """Call sbatch with a script on stdin or named in the arguments.

    Returns stdout and stderr when sbatch exits with 0, or when its output contains the id of a job.

    Raises: Refused, Unanswered; PaiBenchError when sbatch cannot be started.
    """
    try:
        done = subprocess.run(
            ["sbatch", *arguments],
            input=script,
            env=dict(environment),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Unanswered(f"sbatch did not respond within {seconds:.0f} s") from None
    except OSError as error:
        cause = f"sbatch cannot be started: {error.strerror}"
        raise PaiBenchError(cause, "run the command where sbatch is installed, or use --where local") from None
    # A wrapper of sbatch may fail after the job was created: an id in the output counts more than the exit code.
    if done.returncode and not _TAKEN.search(done.stdout + done.stderr):
        raise _failure(done.returncode, done.stderr + _errors(done.stdout))
    return done.stdout, done.stderr


def job_id(stdout: str, stderr: str) -> str:
    """Return the id of the submitted job from sbatch's output.

    Raises: Refused; Unanswered when the output does not contain the id of one job.
    """
    # Sites print other lines around the reply, so a bare number counts only if the usual sentence is missing.
    found = set(_TAKEN.findall(f"{stdout}\n{stderr}")) or set(_PARSABLE.findall(stdout))
    if len(found) != 1:
        errors = stderr + _errors(stdout)
        if not found and _FAILED in errors:  # a wrapper that exits with 0 in any case
            raise _failure(1, errors)
        how_many = "with several numbers" if found else "without the id of a job"
        raise Unanswered(_useful(stderr) or f"sbatch ended {how_many}")
    return str(found.pop())


def _failure(code: int, stderr: str) -> Refused | Unanswered:
    words = _useful(stderr)
    # A shell around sbatch adds 128 to the number of a signal; sbatch itself ends with 1 or 255.
    if code < 0 or 128 < code < 255 or not words:
        ended = f"sbatch was killed by signal {-code}" if code < 0 else f"sbatch ended with {code}"
        return Unanswered(f"{ended}: {words}" if words else ended)
    # Classify by the controller's own message where there is one: a site's submit plug-in can print arbitrary lines
    # before it.
    _, said, verdict = stderr.rpartition(_FAILED)
    verdict = verdict.partition("\n")[0]
    if said and "Unspecified error" in verdict and words != verdict.strip():
        return Refused(words)  # a site's submit plug-in refused the job, and explained why in the lines before
    verdict = verdict if said else words
    # Without a connection nothing was sent. After "Unable to contact slurm controller (receive failure)" it was.
    if any(word in verdict for word in _ABSENT) and not _SENT.search(verdict):
        return Refused(words)
    # A message in another language cannot be classified.
    return Unanswered(words) if _LOST.search(verdict) or (said and not verdict.isascii()) else Refused(words)


def _errors(stdout: str) -> str:
    """Return the error messages of sbatch that a wrapper has printed on stdout, each after a line break."""
    return "".join(f"\n{line}" for line in stdout.splitlines() if line.lstrip().startswith("sbatch: "))


def _useful(stderr: str) -> str:
    """Return the informative lines of sbatch's stderr, without repetitions."""
    lines = [line.strip() for line in stderr.splitlines()]
    errors = [line for line in lines if line.startswith(("sbatch: error: ", "sbatch: fatal: "))]
    found = [
        re.sub(r"^sbatch: (?:error: |fatal: )?", "", line).removeprefix(_FAILED).strip()
        for line in errors or lines
        if line and not any(noise in line for noise in _NOISE)
    ]
    return "; ".join(dict.fromkeys(found))[:LONGEST]


_REMEDIES = {
    "Invalid partition": "name one of `sinfo` with --slurm partition=NAME or in the profile",
    "not permitted to use this partition": "name another of `sinfo` with --slurm partition=NAME or in the profile",
    "Requested node configuration": "request what a node has (`sinfo -o '%P %G %c %m'`), or use --profile cpu",
    "Invalid generic resource": "this cluster has no such GPU: see `sinfo -o %G`, or use --profile cpu",
    "Invalid feature": "correct constraint in the profile",
    "Invalid node name": "correct nodelist and exclude in the profile: `sinfo -N` lists the nodes",
    "Invalid account": "name your account with --slurm account=NAME",
    "Invalid qos": "name your QOS with --slurm qos=NAME",
    "Invalid --signal": "set signal_seconds to at most 65535 in the profile",
    "Memory specification": "leave mem out of the profile",
    "wckey": "set wckey in the profile",
    "time limit": "ask for less time with --slurm time=…",
    "unrecognized option": "correct the name under [options] of the profile; `man sbatch` lists the options",
    "ambiguous": "write the whole name under [options] of the profile; `man sbatch` lists the options",
    "unable to accept job": "try again later: the cluster has as many jobs as it takes",
    **dict.fromkeys(_TOO_MANY, "wait until some of your jobs have ended, or use --cells-per-job for fewer tasks"),
    **dict.fromkeys(_FULL, "try again later: the cluster has as many jobs as it takes"),
    **dict.fromkeys(_ABSENT, "try again later: the controller does not answer; nothing was submitted"),
}


def explain(words: str) -> str:
    """Return the remedy for a message of sbatch."""
    for word, remedy in _REMEDIES.items():
        if word.lower() in words.lower():
            return remedy
    return "correct the profile (slurm/generic.toml shows every key), or set a value with --slurm key=value"
