"""Build of the stub of the CUDA libraries: python -m tests.cuda_stub.build FOLDER prints the environment to use."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent

LIBRARIES = {"libcudart.so.13": "runtime.c", "libcublas.so.13": "blas.c", "libcublasLt.so.13": "blaslt.c"}
"""Source of the functions of a library that do something; all others return success."""
DRIVER = "libcuda.so.1"

_HOST_DEFINES = """#pragma once
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDA_ARRAY_DEFAULT 0
#define __device_builtin__
#define __device_builtin_texture_type__
#define __device_builtin_surface_type__
#define __cudart_builtin__
#define __host__
#define __device__
#define __global__
#define __forceinline__ inline
#define __inline_hint__
#define __align__(a) __attribute__((aligned(a)))
#define __builtin_align__(a) __attribute__((aligned(a)))
#define __NV_SILENCE_HOST_DEPRECATION_BEGIN
#define __NV_SILENCE_HOST_DEPRECATION_END
"""
"""Contents of crt/host_defines.h, which the wheel of the CUDA runtime lacks."""


def missing() -> str | None:
    """Return the reason why the stub cannot be built here, or None."""
    for tool in ("gcc", "nm"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    if _toolkit() is None:
        return "this is not the CUDA 13 build of torch"
    return None


def build(folder: Path) -> dict[str, str]:
    """Compile the stub into `folder` (absolute) and return the environment variables that put it in CUDA's place."""
    toolkit = _toolkit()
    assert toolkit is not None
    (folder / "crt").mkdir(parents=True, exist_ok=True)
    (folder / "crt" / "host_defines.h").write_text(_HOST_DEFINES)
    (folder / "crt" / "host_config.h").write_text("")
    for library, source in LIBRARIES.items():
        _compile(folder, library, source, toolkit / "include", _exports(toolkit / "lib" / library))
    torch = Path(importlib.util.find_spec("torch").origin).parent  # type: ignore[union-attr, arg-type]
    called = dict.fromkeys(_symbols(torch / "lib" / "libcaffe2_nvrtc.so", "--undefined-only"), "")
    called = {name: "" for name in called if name.startswith("cu") and name[2].isupper()}
    _compile(folder, DRIVER, "driver.c", toolkit / "include", called)
    return {"LD_PRELOAD": ":".join(str(folder / name) for name in (*LIBRARIES, DRIVER))}


def _toolkit() -> Path | None:
    """Return the folder of CUDA 13 that the CUDA build of torch brings, with lib and include."""
    found = importlib.util.find_spec("nvidia")
    places = [Path(place) / "cu13" for place in (found.submodule_search_locations or [])] if found else []
    return next((place for place in places if (place / "lib" / "libcudart.so.13").exists()), None)


def _symbols(library: Path, which: str) -> dict[str, str]:
    """Return the versions of a library's dynamic functions by name."""
    listed = subprocess.run(["nm", "-D", which, library], capture_output=True, text=True, check=True).stdout
    names = [line.split()[-1].replace("@@", "@").partition("@") for line in listed.splitlines()]
    return {name: version for name, _, version in names if name.isidentifier()}


def _exports(library: Path) -> dict[str, str]:
    return {name: version for name, version in _symbols(library, "--defined-only").items() if version}


def _compile(folder: Path, library: str, source: str, include: Path, names: dict[str, str]) -> None:
    """Compile one library with all of `names`, each in its version."""
    compiler = ["gcc", "-fPIC", "-O1", "-w", f"-I{folder}", f"-I{include}"]
    own = folder / f"{library}.o"
    subprocess.run([*compiler, "-c", HERE / source, "-o", own], check=True)
    written = {
        line.split()[-1]
        for line in subprocess.run(["nm", own], capture_output=True, text=True, check=True).stdout.splitlines()
        if " T " in line
    }
    rest = folder / f"{library}.c"
    rest.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in sorted(names) if name not in written))
    versions = sorted({version for version in names.values() if version})
    table = "".join(
        f"{version} {{ global: {' '.join(f'{name};' for name in sorted(names) if names[name] == version)} }};\n"
        for version in versions
    )
    script = folder / f"{library}.map"
    script.write_text(f"{table}STUB {{ global: stub_*; local: *; }};\n")
    options = [f"-Wl,--version-script={script}"] if versions else []
    subprocess.run(
        [*compiler, "-shared", own, rest, "-lpthread", *options, f"-Wl,-soname,{library}", "-o", folder / library],
        check=True,
    )


if __name__ == "__main__":
    if reason := missing():
        sys.exit(reason)
    for key, value in build(Path(sys.argv[1]).resolve()).items():
        print(f"{key}={value}")
