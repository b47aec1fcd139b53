"""Run Python code in a fresh interpreter, which can import the modules of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run_script(
    code: str, *arguments: object, path: Path | None = None, timeout: float = 120, **environment: str | None
) -> str:
    """Standard output of `code`; `environment` adds variables, or takes them away (None).

    `path` comes first where modules are looked for. A script that fails, or takes longer than
    `timeout` seconds, raises.
    """
    variables = {**os.environ, **environment}
    variables["PYTHONPATH"] = os.pathsep.join(str(p) for p in (path, HERE, HERE.parent) if p)
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr}"
    return done.stdout
