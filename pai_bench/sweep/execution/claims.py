"""Claims on cells: one process creates a claim and keeps it alive; others take it over when its owner is dead.

Claims only avoid duplicate work; they are not locks. If two processes run the same cell anyway, the first valid result
counts. A claim is a file that exactly one process can create, on NFS as well as on a local disk. Its owner replaces a
heartbeat file next to it every few seconds. The age of a heartbeat is measured with the clock of the file server alone
(relative to a file written just before), because the clocks of the machines may differ and jump.
"""

from __future__ import annotations

import errno
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from pai_bench import results
from pai_bench.core.atomic import GONE, as_json, draft, move_away, reason, server_time, write_json
from pai_bench.results import ResultKey
from pai_bench.sweep.execution.claim_files import parse, parse_beat
from pai_bench.sweep.execution.owner import STALE_SECONDS, Owner, liveness, superseded

__all__ = ["Claim", "ClaimStatus", "Owner", "clear", "survey", "take"]

BEAT_SECONDS = 10.0
WATCHED_SECONDS = 25.0
"""Seconds for which a stale heartbeat is watched before its claim is taken: the server's clock may have jumped."""
_BEAT_FIELDS = ("phase", "epoch", "epochs", "seconds_per_epoch", "seconds", "progress")
"""Fields of a heartbeat."""


@dataclass(frozen=True)
class ClaimStatus:
    """A claim read from disk, with the verdict on its owner."""

    key: ResultKey
    """The key of the cell's result; its fingerprint has only eight digits if the claim cannot be read."""
    owner: Owner
    age: float
    """Seconds since the last heartbeat."""
    verdict: str
    """"alive", "dead" or "unknown"."""
    sure: bool
    """True if the verdict rests on more than the age of the heartbeat."""
    phase: str | None
    epoch: int | None
    epochs: int | None
    seconds_per_epoch: float | None
    seconds: float | None
    """Seconds since the owner began the cell; like the four fields above, taken from the last heartbeat."""
    progress: int | None
    """Number of progress ticks counted by the owner."""
    damaged: Path | None = None
    """The path of the heartbeat, if its content is not valid."""


class Claim:
    """A claim of this process on a cell: a context manager that keeps the claim alive and releases it."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self.path = path
        self.owner = owner
        self._place = results.beat_path(path, owner.id)
        self._began = time.monotonic()
        self._said: dict[str, Any] = {"phase": None, "epoch": None, "epochs": None, "seconds_per_epoch": None}
        self._progress = 0
        self._beats = 0
        self._lost = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="heartbeat", daemon=True)

    def __enter__(self) -> Claim:
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def beat(self, **said: Any) -> None:
        """Update the fields of the next heartbeats: phase, epoch, epochs and seconds_per_epoch."""
        self._said = {**self._said, **said}
        self.tick()

    def tick(self) -> None:
        """Count one progress tick."""
        self._progress += 1

    def lost(self) -> bool:
        """Return True if another process has taken over the claim; finishing the cell is harmless nevertheless."""
        if not self._lost:
            with suppress(OSError):
                self._lost = not self._is_ours(self.path.read_bytes())
        return self._lost

    def release(self) -> None:
        """Stop the heartbeat, and remove the claim if this process still owns it."""
        self._end.set()
        if self._thread.is_alive():
            # A heartbeat that is being written would appear again after its removal.
            self._thread.join()
        with suppress(OSError):
            # A crash may follow: a claim alone is taken over later, but nobody would remove a heartbeat alone.
            self._place.unlink(missing_ok=True)
        with suppress(OSError):
            seen = self.path.stat()
            if self._is_ours(self.path.read_bytes()):
                _take_away(self.path, seen)

    def _is_ours(self, content: bytes) -> bool:
        held = parse(content)
        return held is not None and held[1] == self.owner

    def _keep(self) -> None:
        while not self._end.wait(BEAT_SECONDS):
            self._write()
            self.lost()

    def _write(self) -> None:
        self._beats += 1
        seconds = round(time.monotonic() - self._began, 3)
        fields = {**self._said, "seconds": seconds, "progress": self._progress, "beat": self._beats}
        try:
            write_json(self._place, fields)
        except OSError:
            # A full disk refuses a new file, but updating the timestamp still shows that this process is alive.
            with suppress(OSError):
                os.utime(self._place)


def take(
    root: Path,
    key: ResultKey,
    owner: Owner,
    jobs: Mapping[str, str] | None = None,
    tick: Callable[[], None] = lambda: None,
    place: Path | None = None,
) -> Claim | None:
    """Claim a cell, or other work for it by its own `place`; return None if a process that may be alive has the claim.

    A claim whose owner is known to be dead is taken over at once. If a stale heartbeat is the only evidence, the
    claim is watched first, and `tick` is called meanwhile.
    """
    place = place or key.claim_path(root)
    claimed_at = datetime.now(UTC).isoformat(timespec="seconds")
    content = as_json({"owner": asdict(owner), "claimed_at": claimed_at, **key.as_dict()})
    while True:
        with draft(place) as new:
            with new.writing() as file:
                file.write(content)
            if new.put():
                return Claim(place, owner)
        try:
            seen = place.stat()
            now = server_time(place.parent)
            held = None if place.is_dir() else _look(place, now, jobs)
        except FileNotFoundError:
            continue
        if held is None:
            if now - seen.st_mtime <= STALE_SECONDS:
                return None  # on file systems without hard links a new claim is empty for a moment
            _take_away(place, seen)
            continue
        if held.owner == owner:
            return Claim(place, owner)
        if not superseded(held.owner, owner) and (
            held.verdict == "alive" or not (held.sure or _has_stopped(place, held.owner, tick))
        ):
            return None
        if _take_away(place, seen):
            results.beat_path(place, held.owner.id).unlink(missing_ok=True)


def _has_stopped(place: Path, owner: Owner, tick: Callable[[], None]) -> bool:
    """Watch a claim and its heartbeat; return True if neither changed."""

    def traces() -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for path in (place, results.beat_path(place, owner.id)):
            try:
                with path.open("rb") as file:
                    status = os.fstat(file.fileno())
                found.append((status.st_ino, status.st_mtime_ns))
            except FileNotFoundError:
                found.append(None)
        return found

    before = traces()
    end = time.monotonic() + WATCHED_SECONDS
    while time.monotonic() < end:
        time.sleep(min(1.0, WATCHED_SECONDS))
        tick()  # a worker that watches a claim must not be taken for one that hangs
        if traces() != before:
            return False
    return True


def _take_away(place: Path, seen: os.stat_result) -> bool:
    aside = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    if not move_away(place, aside, seen):
        return False
    if aside.is_dir():
        aside.rename(place.with_name(f"{place.name}.damaged-{uuid.uuid4().hex[:8]}"))  # keep unexpected content
    else:
        aside.unlink(missing_ok=True)
    return True


def clear(root: Path, held: Iterable[ClaimStatus]) -> None:
    """Remove the claims of dead owners whose cells have their results."""
    for claim in held:
        place, result = claim.key.claim_path(root), claim.key.path(root)
        with suppress(OSError):
            seen = place.stat()
            parsed = parse(place.read_bytes())
            ours = parsed is not None and parsed[1] == claim.owner
            if claim.verdict == "dead" and ours and result.exists() and _take_away(place, seen):
                results.beat_path(place, claim.owner.id).unlink(missing_ok=True)


def _ignore(_text: str) -> None:
    pass


def survey(
    root: Path, jobs: Mapping[str, str] | None = None, complain: Callable[[str], None] = _ignore
) -> list[ClaimStatus]:
    """Return all claims below the root, with the verdicts on their owners.

    `jobs` maps SLURM jobs to their states; None when the controller does not respond. `complain` receives a message
    for each file that is skipped because it is not a valid claim or heartbeat.
    """
    folder = results.claims_folder(root)
    names = sorted(results.names(folder, ".claim"))
    if not names:
        return []
    # One time serves all claims, because each call writes and syncs a file.
    now = server_time(folder)
    found = [_look_patiently(folder, name, now, jobs, lambda text: complain(f"state/claims/{text}")) for name in names]
    return [held for held in found if held is not None]


def _look_patiently(
    folder: Path, name: str, now: float, jobs: Mapping[str, str] | None, complain: Callable[[str], None]
) -> ClaimStatus | None:
    """Return a claim with its verdict ("unknown" when the file cannot be read), or None when the claim is gone.

    A claim that is released during the read counts as gone too; NFS reports this as ESTALE instead of ENOENT.
    """
    # A claim that is replaced during the first read gives ESTALE on NFS.
    for _ in range(2):
        try:
            held = _look(folder / f"{name}.claim", now, jobs)
            if held is None:
                complain(f"{name}.claim is damaged and was skipped")
            elif held.damaged is not None:
                complain(f"{held.damaged.relative_to(folder)} is damaged: the progress of its cell is unknown")
            return held
        except OSError as error:
            cause = error
    key = ResultKey.parse(name)
    # On NFS, a claim that another client has released may give ESTALE instead of ENOENT.
    if key is None or isinstance(cause, GONE) or cause.errno == errno.ESTALE:
        return None
    unreadable = Owner("", f"an unknown host: its claim cannot be read ({reason(cause)})", "", 0, None, None, 0, None)
    fields: dict[str, Any] = dict.fromkeys(_BEAT_FIELDS)
    return ClaimStatus(key, unreadable, 0.0, "unknown", False, **fields)


def _look(place: Path, now: float, jobs: Mapping[str, str] | None) -> ClaimStatus | None:
    """Return a claim with its verdict; None when its content is not valid.

    Raises: FileNotFoundError when the claim is gone.
    """
    with place.open("rb") as file:
        time_seen = os.fstat(file.fileno()).st_mtime
        parsed = parse(file.read())
    if parsed is None:
        return None
    key, owner = parsed
    beat: dict[str, Any] | None = {}
    beats = results.beat_path(place, owner.id)
    # Opening the file makes an NFS client ask the server; attributes from a plain stat may be a minute old.
    with suppress(OSError, ValueError), beats.open("rb") as file:
        time_seen = os.fstat(file.fileno()).st_mtime
        beat = parse_beat(file.read())
    age = now - time_seen
    verdict, sure = liveness(owner, age, jobs)
    fields = {name: (beat or {}).get(name) for name in _BEAT_FIELDS}
    damaged = beats if beat is None else None
    return ClaimStatus(key, owner, age, verdict, sure, **fields, damaged=damaged)
