"""Cluster profiles: the resources and options that jobs request, read from TOML and validated key by key."""

from __future__ import annotations

import math
import os
import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from pai_bench.errors import PaiBenchError, unknown

DEFAULT = "generic"
GPU_REQUESTS = ("gres", "gpus_per_node", "gpus")
_PACKAGE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Profile:
    """Job options of one cluster; slurm/generic.toml documents each field."""

    name: str
    summary: str = ""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    nodelist: str | None = None
    gpus: int = 0
    gpu_type: str | None = None
    gpu_request: str = "gres"
    cpus_per_task: int = 1
    mem: str | None = None
    time: int | None = None
    """Time limit in minutes; None: derived from the estimated duration."""
    setup: tuple[str, ...] = ()
    container: str | None = None
    use_srun: bool = True
    requeue: bool = True
    signal_seconds: int = 120
    max_array: int = 1000
    parallelism: int = 64
    wckey: str | None = None
    comment: str | None = None
    options: tuple[tuple[str, str | bool], ...] = field(default=())


def names() -> list[str]:
    """Return the names of all profiles, built-in and user-defined, in alphabetical order."""
    return sorted({path.stem for folder in _folders() for path in folder.glob("*.toml")})


def load(name: str, settings: Sequence[str] = ()) -> Profile:
    """Load the profile `name` (a path, when it ends in .toml) and apply `key=value` settings to it.

    Raises: PaiBenchError with the file and the key, for an unknown key or an invalid value.
    """
    place = _find(name)
    try:
        content = tomllib.loads(place.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise PaiBenchError(f"profile {place} cannot be read: {error}", "give the path of a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        raise PaiBenchError(f"profile {place} is not valid TOML: {error}", "correct that line") from None
    profile = _updated(Profile(place.stem), content, str(place))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise PaiBenchError(f"--slurm {setting!r} is not key=value", "for instance --slurm partition=gpu")
        profile = _updated(profile, _nested(key.strip(), _value(text.strip())), "--slurm")
    return profile


LONGEST_MINUTES = 365 * 24 * 60


def minutes(text: str | int) -> int:
    """Convert a duration to whole minutes: 90, "90min", "4h", "1d", or SLURM's "01:30:00" and "1-00:00:00".

    Raises: ValueError for any other text, for zero, which SLURM treats as unlimited, and for more than a year.
    """
    found = _minutes(str(text).strip())
    if not 0 < found <= LONGEST_MINUTES:
        raise ValueError(text)
    # SLURM counts whole minutes, and 0 would mean no limit.
    return math.ceil(found) if found < 1 else round(found)


def _minutes(text: str) -> float:
    words = re.fullmatch(r"(\d+(?:\.\d+)?) ?(m|min|h|d)?", text)
    if words:
        return float(words[1]) * {"h": 60, "d": 24 * 60}.get(words[2], 1)
    clock = re.fullmatch(r"(?:(\d+)-)?(\d+):(\d\d)(?::(\d\d))?", text)
    if not clock:
        raise ValueError(text)
    days, first, second, third = (int(part or 0) for part in clock.groups())
    # SLURM's formats are ambiguous: after days the fields are hh:mm[:ss], two fields alone are mm:ss.
    if clock[1] is not None or clock[4] is not None:
        return days * 24 * 60 + first * 60 + second + (third > 0)
    return first + (second > 0)


def _folders() -> list[Path]:
    inside = _PACKAGE / "profiles"
    ours = inside if inside.is_dir() else _PACKAGE.parent / "slurm"
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    # The user's folder comes first, so that a profile there replaces a built-in one of the same name.
    return [home / "pai-bench" / "slurm", ours]


def _find(name: str) -> Path:
    if name.endswith(".toml"):
        return Path(name)
    for folder in _folders():
        if (folder / f"{name}.toml").is_file():
            return folder / f"{name}.toml"
    raise unknown("profile", name, names())


def _nested(key: str, value: Any) -> dict[str, Any]:
    table, dot, inner = key.partition(".")
    return {table: {inner: value}} if dot else {key: value}


def _value(text: str) -> Any:
    """Return the text parsed as a TOML value, or the text itself when it is not one."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


_KINDS: dict[str, tuple[str, type]] = {
    "str": ("a text", str),
    "str | None": ("a text", str),
    "bool": ("true or false", bool),
    "int": ("a whole number", int),
}
_LEAST = {"gpus": 0, "cpus_per_task": 1, "signal_seconds": 30, "max_array": 1, "parallelism": 1}
_MOST = {"signal_seconds": 65535}
"""Upper bounds; sbatch stores the time of --signal in 16 bits."""


def _updated(profile: Profile, content: Mapping[str, Any], where: str) -> Profile:
    known = {f.name: str(f.type) for f in fields(Profile) if f.name != "name"}
    values: dict[str, Any] = {}
    for key, value in content.items():
        if key not in known:
            error = unknown("key", key, known)
            raise PaiBenchError(f"{where}: {error.cause}", f"{error.remedy}; other options of sbatch go to [options]")
        if key == "options":
            values[key] = _options(profile, value, where)
        elif key == "setup":
            if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
                raise PaiBenchError(f"{where}: setup = {value!r} is not a list of texts", 'write ["line", "line"]')
            values[key] = tuple(value)
        elif key == "time":
            try:
                values[key] = minutes(value)
            except ValueError:
                cause = f"{where}: time = {value!r} is not a time limit between a minute and 365 days"
                remedy = 'write "4h" or "1-00:00:00", or leave it out: twice the estimate is asked for then'
                raise PaiBenchError(cause, remedy) from None
        else:
            words, kind = _KINDS[known[key]]
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                raise PaiBenchError(f"{where}: {key} = {value!r} is not {words}", f"write {words}")
            if key in _LEAST and isinstance(value, int) and value < _LEAST[key]:
                raise PaiBenchError(f"{where}: {key} = {value} is too small", f"write {_LEAST[key]} or more")
            if key in _MOST and isinstance(value, int) and value > _MOST[key]:
                raise PaiBenchError(f"{where}: {key} = {value} is too large", f"write {_MOST[key]} or less")
            _check_text(f"{where}: {key}", value)
            values[key] = value
    profile = replace(profile, **values)
    if profile.gpu_request not in GPU_REQUESTS:
        error = unknown("gpu_request", profile.gpu_request, GPU_REQUESTS)
        raise PaiBenchError(f"{where}: {error.cause}", error.remedy)
    if profile.mem is not None and not re.fullmatch(r"\d+(K|M|G|T)B?", profile.mem):
        raise PaiBenchError(f"{where}: mem = {profile.mem!r} is not an amount of memory", 'write it as "16G"')
    return profile


_OURS = (
    *("array", "comment", "dependency", "error", "job-name", "no-requeue", "output", "signal", "wrap"),
    *("help", "parsable", "quiet", "test-only", "usage", "version", "wait"),
)
"""Options that pai-bench sets itself, and options with which sbatch submits nothing or does not print the job's id."""


def _options(profile: Profile, table: Any, where: str) -> tuple[tuple[str, str | bool], ...]:
    if not isinstance(table, dict):
        raise PaiBenchError(f"{where}: options is not a table", "write a table [options] with one line per option")
    options = dict(profile.options)
    own = {f.name.replace("_", "-") for f in fields(Profile)} - {"name", "options"}
    for key, value in table.items():
        name = key.replace("_", "-")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]+", name):
            remedy = "write the long name of an option of sbatch, without dashes in front; `man sbatch` lists them"
            raise PaiBenchError(f"{where}: options.{ascii(key)[1:-1]} is not the long name of an option", remedy)
        if name in _OURS:
            raise PaiBenchError(f"{where}: options.{key} is set by pai-bench itself", "leave it out")
        if name in own:
            raise PaiBenchError(f"{where}: options.{key} is a key of the profile", f"write {key} = … above [options]")
        # sbatch uses getopt_long, which accepts any unambiguous prefix of an option's name.
        if short := next((full for full in sorted({*_OURS, *own}) if full.startswith(name)), None):
            cause = f"{where}: options.{key} may be short for {short}, which is not set here"
            raise PaiBenchError(cause, "write the whole name of the option; `man sbatch` lists them")
        if value is False or not isinstance(value, (str, int, float)):
            raise PaiBenchError(
                f"{where}: options.{key} = {value!r} is not a valid value", "write a text, a number or true"
            )
        _check_text(f"{where}: options.{key}", value)
        options[name] = True if value is True else str(value)
    return tuple(options.items())


def _check_text(what: str, value: object) -> None:
    """Check that a value fits into one line of the batch script.

    Raises: PaiBenchError for control characters.
    """
    if any(unicodedata.category(mark) in ("Cc", "Cs") for mark in str(value)):
        raise PaiBenchError(f"{what} = {value!r} contains a control character", "write one line of plain text")
