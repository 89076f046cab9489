"""Steps of a merge of results folders: compare and copy results, masks, plans and records."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pai_bench.core.atomic import GONE, draft, read_bytes, reason, replacing
from pai_bench.errors import PaiBenchError
from pai_bench.results import paths, shapes
from pai_bench.results.key import ResultKey
from pai_bench.results.plans import parse_plan, read_plans
from pai_bench.results.record import DamagedResult, read_plain
from pai_bench.results.store import COMPARED, set_aside

FIELDS = (*COMPARED, "fingerprint")
"""Fields in which results of one cell must agree; costs, dates and provenance may differ."""


@dataclass(frozen=True)
class Conflict:
    """Files that contradict each other. None of them was copied."""

    name: str
    """Name of the cell (see `results.name`), or of the data set whose copies differ."""
    files: tuple[str, ...]
    """Paths of the files; one in the output folder comes first, and stays where it is."""
    differs: Mapping[str, tuple[Any, ...]]
    """Values in the order of `files`, by field."""


@dataclass
class Merge:
    """A merge in progress."""

    roots: Sequence[Path]
    out: Path
    counts: Counter[str] = field(default_factory=Counter)
    conflicts: list[Conflict] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    unusable: set[Path] = field(default_factory=set)
    """Results that are in place but cannot be read, or were written by a newer version."""

    def merge_plans(self) -> None:
        """Copy all valid plans. A report uses the cells of all plans, and the newest settings of each variant."""
        for root in self.roots:
            self.damaged += [f"{root}: {line}" for line in read_plans(root).damaged]
            for place in sorted((root / "plans").glob("*.json")):
                try:
                    content = place.read_bytes()
                    parse_plan(content)
                except (OSError, ValueError):
                    continue  # already in `damaged`
                target = self.out / "plans" / place.name
                if not _put(content, target) and target.read_bytes() != content:
                    # Plans of one name may differ between folders, and a report needs the cells of both.
                    _put(content, target.with_stem(f"{place.stem}-{hashlib.sha256(content).hexdigest()[:6]}"))

    def merge_fixed_masks(self) -> None:
        """Copy the mask files that were given to sweeps; their names contain a hash of the masks."""
        for root in self.roots:
            for place in sorted(paths.fixed_masks_path(root, "any").parent.glob("*.npz")):
                self._copy(place, paths.fixed_masks_path(self.out, place.stem))

    def merge_data_records(self) -> set[str]:
        """Copy the records of the data set copies; return the data sets whose copies differ between folders."""
        refused = set()
        folders = [paths.data_copy_path(root, "any").parent for root in (self.out, *self.roots)]
        for name in sorted({place.name for folder in folders for place in folder.glob("*.json")}):
            origins = {}
            for place in (folder / name for folder in folders):
                with suppress(OSError, ValueError):  # a sweep ignores a damaged record, too
                    plain = shapes.table(read_bytes(place))
                    shapes.check(plain, {"dataset": (str,), "origin": (str,)})
                    origins[place] = plain["origin"]
            if len(set(origins.values())) > 1:
                dataset = name.removesuffix(".json")
                refused.add(dataset)
                self._disagree(dataset, origins, {"copy of the data set": tuple(origins.values())})
            elif origins:
                self._copy(next(iter(origins)), folders[0] / name)
        return refused

    def result_names(self) -> list[str]:
        """Return the names of all results of the merged folders, sorted."""
        found = set()
        for root in self.roots:
            top = root / "runs"
            for folder, _, files in os.walk(top, onerror=self._note_unreadable):
                inside = Path(folder).relative_to(top)
                found |= {str(inside / file.removesuffix(".json")) for file in files if file.endswith(".json")}
        return sorted(found)

    def merge_result(self, name: str) -> None:
        """Copy the result of that name and its masks, unless the output folder contains it or the folders disagree."""
        target = _place(self.out, name)
        places = [_place(root, name) for root in (self.out, *self.roots)]
        held = {place: plain for place in places if (plain := self._read(place, name)) is not None}
        if not held or target in self.unusable:
            return
        first = next(iter(held.values()))
        differs = {
            key: tuple(plain[key] for plain in held.values())
            for key in FIELDS
            if any(plain[key] != first[key] for plain in held.values())
        }
        if differs:
            self._disagree(name, held, differs)
            return
        masks_place, masks = self._masks(held)
        if target in held:
            if masks is not None and masks_place != paths.masks_path(target):
                with replacing(paths.masks_path(target)) as file:
                    file.write(masks)
        elif not _put_result(read_bytes(next(iter(held))), masks, target):
            self.merge_result(name)  # another process delivered a result of this cell during the comparison
            return
        self.counts["present" if target in held else "copied"] += 1
        self.counts["repeated"] += len(held) - (target in held) > 1
        self.counts["without masks"] += masks is None
        (paths.failures_folder(self.out) / f"{name}.json").unlink(missing_ok=True)

    def merge_failures(self) -> None:
        """Copy the failure records of cells without a result."""
        for root in self.roots:
            for name in sorted(paths.names(paths.failures_folder(root), ".json")):
                if not _place(self.out, name).exists():
                    place, target = (paths.failures_folder(top) / f"{name}.json" for top in (root, self.out))
                    self.counts["failures"] += self._copy(place, target)

    def _read(self, place: Path, name: str) -> dict[str, Any] | None:
        try:
            seen = place.stat()
            plain = read_plain(place)
            key = ResultKey.of(plain)
            if key.name != name:
                raise DamagedResult(f"result {place} is damaged: it is the result of {key.cell}", "")
        except GONE:
            return None
        except DamagedResult as error:
            # Only the output folder may be changed; the merged folders stay as they are.
            if place.is_relative_to(self.out):
                set_aside(place, seen)
            self.damaged.append(error.cause)
            return None
        except (PaiBenchError, OSError) as error:
            cause = (
                error.cause if isinstance(error, PaiBenchError) else f"result {place} cannot be read: {reason(error)}"
            )
            self.damaged.append(cause)
            self.unusable.add(place)
            return None
        return plain

    def _masks(self, held: Iterable[Path]) -> tuple[Path | None, bytes | None]:
        """Return path and content of the first valid mask file beside equal results, or None."""
        for place in map(paths.masks_path, held):
            try:
                content = read_bytes(place)
                if zipfile.ZipFile(io.BytesIO(content)).testzip() is None:
                    return place, content
                self.damaged.append(f"masks {place} are damaged: wrong checksum")
            except GONE:
                continue
            except (OSError, zipfile.BadZipFile) as error:
                self.damaged.append(f"masks {place} cannot be read: {error}")
        return None, None

    def _note_unreadable(self, error: OSError) -> None:
        if not isinstance(error, GONE):
            self.damaged.append(f"folder {error.filename} cannot be read: {reason(error)}")

    def _copy(self, place: Path, target: Path) -> bool:
        try:
            content = read_bytes(place)
        except GONE:
            return False
        except OSError as error:
            self.damaged.append(f"{place} cannot be read: {reason(error)}")
            return False
        return _put(content, target)

    def _disagree(self, name: str, files: Iterable[Path], differs: Mapping[str, tuple[Any, ...]]) -> None:
        self.conflicts.append(Conflict(name, tuple(map(str, files)), differs))


def _place(root: Path, name: str) -> Path:
    return root / "runs" / f"{name}.json"


def _put(content: bytes, target: Path) -> bool:
    """Write a file unless one is there; return True if it was written."""
    if target.exists():
        return False
    with draft(target) as new:
        with new.writing() as file:
            file.write(content)
        return new.put()


def _put_result(content: bytes, masks: bytes | None, target: Path) -> bool:
    """Write a result and, before it, its masks; return False if there is a result already."""
    if masks is None:
        return _put(content, target)
    with draft(target) as new, draft(paths.masks_path(target)) as new_masks:
        for one, part in ((new_masks, masks), (new, content)):
            with one.writing() as file:
                file.write(part)
        # Masks come first: a merge that is killed in between must not leave a result without masks.
        new_masks.put()
        if not new.put():
            return False
        if not new_masks.is_placed():
            new_masks.replace()  # masks without a result, of a process that died
    return True
