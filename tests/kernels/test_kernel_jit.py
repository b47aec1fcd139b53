"""Kernels compile on first use, run without a compiler, and run where nothing can be cached."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import NAMES, Dims, everything, make, run
from checks import same_bytes
from numba import carray
from scripts import run_script

import minitl
from minitl.arrays import Array
from minitl.kernels.compile import kernel

SMALL = Dims(n=2, h=5, w=3, c=3, o=2, k=3, stride=2, flag=True)


def small_runs() -> dict[str, Array]:
    """Everything that every op and rule gives on small inputs of both dtypes."""
    return {
        f"{name} {dtype} {part}": array
        for name, spec in NAMES.items()
        for dtype in ("float32", "float64")
        for part, array in everything(run(make(spec, SMALL, dtype=dtype))).items()
    }


SAVE = """
import sys, minitl, numpy
from test_kernel_jit import small_runs
numpy.savez(sys.argv[1], **small_runs())
import numba
print(minitl.__file__, numba.config.DISABLE_JIT)
"""


def test_without_the_compiler_the_bytes_are_the_same(tmp_path: Path) -> None:
    """The plain loops and NumPy's lines, which one reads, give what the kernels give."""
    file = tmp_path / "runs.npz"
    out = run_script(SAVE, file, path=Path(__file__).parent, NUMBA_DISABLE_JIT="1")
    assert out.split()[1] == "1"
    plain, compiled = dict(np.load(file)), small_runs()
    assert plain.keys() == compiled.keys()
    assert [name for name, array in compiled.items() if not same_bytes(array, plain[name])] == []


UNCACHED = """
import numba
from cases import NAMES, Dims, make, run
import minitl.kernels.depthwise as module
y = run(make(NAMES["depthwise_conv"], Dims(), needs=[False] * 3)).y
print(module.__file__)
print(y.tobytes().hex())
print(int(numba.config.OPT))
"""


def isolated(tmp_path: Path) -> Path:
    """A copy of the package with no compiled kernels."""
    package = tmp_path / "minitl"
    shutil.copytree(Path(minitl.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def expected() -> str:
    return run(make(NAMES["depthwise_conv"], Dims(), needs=[False] * 3)).y.tobytes().hex()


@pytest.mark.parametrize("writable", [True, False])
def test_kernels_run_where_nothing_can_be_cached(tmp_path: Path, writable: bool) -> None:
    """They leave Numba's own settings, which others in the process compile by, as they were."""
    package = isolated(tmp_path)
    if not writable:
        (package / "kernels" / "compiled" / "__pycache__").write_text("a file where Numba would make a directory")
    nowhere = str(package / "__init__.py" / "no-home")
    out = run_script(
        UNCACHED,
        path=tmp_path,
        HOME=nowhere,
        XDG_CACHE_HOME=nowhere,
        NUMBA_CACHE_DIR=None,
        NUMBA_OPT=None,
        PYTHONDONTWRITEBYTECODE="1",
    ).split("\n")
    assert Path(out[0]) == package / "kernels" / "depthwise.py"
    assert out[1:3] == [expected(), "3"]


INSTALLED = (
    """
import sys, sysconfig
sysconfig.get_path = lambda scheme: sys.argv[1]
"""
    + UNCACHED
)


def test_an_installed_package_caches_for_its_user(tmp_path: Path) -> None:
    """Nothing is left in the folder of the package, which pip would not take away; where it must be, it runs too."""
    package, home = isolated(tmp_path), tmp_path / "home"
    settings = {"HOME": str(home), "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None, "PYTHONDONTWRITEBYTECODE": "1"}
    for installed, place, other in ((tmp_path, home, package), (tmp_path / "elsewhere", package, home)):
        out = run_script(INSTALLED, installed, path=tmp_path, **settings).split("\n")
        assert out[1] == expected()
        assert list(place.rglob("*.nbi"))
        assert not list(other.rglob("*.nbi"))
        for file in place.rglob("*.nb?"):
            file.unlink()


def test_a_kernel_that_numba_would_not_compile_whole_is_refused() -> None:
    def run(p: Any) -> None:
        def inner() -> None: ...

        carray(p, (1,), np.float64)[:] = 0
        inner()

    with pytest.raises(AssertionError, match="drops a carray's writes"):
        kernel(run)


DAMAGED = """
import contextlib, io, os, sys
from numba import config
from minitl.kernels import compile, depthwise, tasks
from minitl.kernels.compiled import depthwise as kernels, runner
from test_kernel_jit import expected

warnings = []
for cache in sys.argv[1:]:
    os.environ["NUMBA_CACHE_DIR"] = cache
    config.reload_config()
    compile._warned = False
    for made in (kernels.convolve, runner.runner, depthwise.forward_table):
        made.cache_clear()
    with contextlib.redirect_stderr(io.StringIO()) as warned:
        print(expected())
    warnings.append(warned.getvalue().count(f"emptying {cache} may mend it"))
print(warnings)
"""


def test_a_damaged_cache_is_no_obstacle(tmp_path: Path) -> None:
    """Emptied, overwritten or cut short: kernels are compiled anew, and the folder is named, once."""
    whole = tmp_path / "whole"
    run_script(UNCACHED, path=Path(__file__).parent, NUMBA_CACHE_DIR=str(whole))
    caches: list[Path] = []
    for ending in ("nbi", "nbc"):
        for damage in (b"", b"\x80\x05garbage", None):
            caches.append(tmp_path / f"{len(caches)}")
            shutil.copytree(whole, caches[-1])
            files = list(caches[-1].rglob(f"*.{ending}"))
            assert files
            for file in files:
                file.write_bytes(file.read_bytes()[:40] if damage is None else damage)
    *found, warnings = run_script(DAMAGED, *caches, path=Path(__file__).parent).splitlines()
    assert found == [expected()] * len(caches)
    assert warnings == str([1] * len(caches))


@pytest.mark.parametrize("module", ["minitl", "minitl.ops"])
def test_importing_does_not_import_numba(module: str) -> None:
    heavy = "{'numba', 'llvmlite', 'torch', 'matplotlib'}"
    assert run_script(f"import sys, {module}; print({heavy} & set(sys.modules))").strip() == "set()"
    assert run_script(f"import sys, {module}, numba; print({heavy} & set(sys.modules))").strip() != "set()"
