"""The mistakes made in C: `c/mistakes.c`, compiled with a table of cases, and what it prints read back."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from minitl import oracle
from minitl.oracle.answers import read_log
from minitl.oracle.c_header import write_table

SOURCE = Path(__file__).parent / "c" / "mistakes.c"
COMPILER = os.environ.get("CC", "cc")
STRICT = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
OPS = (
    "conv", "pointwise_conv", "depthwise_conv", "linear", "batch_norm", "frozen_norm", "relu", "relu6", "hard_swish",
    "hard_sigmoid", "squeeze_excite", "global_avg_pool", "cross_entropy", "irb",
)  # fmt: skip
RULES = ("", "exact", "output", "sign", "band", "codes")  # whose gradient the program knows
METHODS = ("ft", "mobiletl")


def covered(entries: Sequence[oracle.Entry]) -> list[oracle.Case]:
    """The cases that the program can run."""
    made = [e.name for e in entries if e.op in OPS and (e.op != "irb" or e.method in METHODS)]
    cases = [oracle.load(SOURCE.parents[1] / "golden" / name) for name in made]
    return [case for case in cases if case.rule in RULES]


def compiled(cases: Sequence[oracle.Case], folder: Path) -> Path:
    """The program for these cases."""
    write_table(cases, folder)
    program = folder / "mistakes"
    sources = [str(SOURCE), str(folder / "check.c")]
    command = [COMPILER, *STRICT, "-DMINITL_ANSWERS", "-I", str(folder), *sources, "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return program


def mistakes(program: Path) -> list[str]:
    """All that it can make."""
    return subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()


def answers(program: Path, cases: Sequence[oracle.Case], mistake: str) -> Iterator[tuple[oracle.Case, dict[str, Any]]]:
    """What it prints for each case with that mistake, or none for ""."""
    log = program.parent / "log.txt"
    with log.open("w") as stream:
        subprocess.run([program, mistake], stdout=stream, check=False)
    found = read_log(log)
    for case in cases:
        yield case, found[case.name](case)
