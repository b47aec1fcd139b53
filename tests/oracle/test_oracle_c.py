"""The C header and its checker, with a real compiler: right code passes, wrong code and NaN do not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import minitl
from minitl import cli
from minitl.oracle import Case
from minitl.oracle.c_header import header, identifier, write_header
from minitl.verbs.oracle_cases import AT_WORK

SOURCES = Path(__file__).parent / "c"
PAGE = Path(__file__).parents[2] / "tutorials" / "check_your_implementation.md"
COMPILER = os.environ.get("CC", "cc")
STRICT = ["-std=c99", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
STEPS = [
    "",
    "-DMINITL_FORWARD",
    "-DMINITL_GRAD_INPUT",
    "-DMINITL_GRAD_WEIGHT",
    "-DMINITL_PLACE=__attribute__((aligned(16)))",
]

needs_compiler = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="needs a C compiler")
EITHER_LAYOUT = pytest.mark.parametrize("layout", ["nchw", "nhwc"])
SHAPES = pytest.mark.parametrize(
    ("kernel", "stride", "height", "width"), [(3, 1, 5, 3), (5, 2, 7, 4), (7, 1, 4, 9), (3, 2, 6, 6)]
)


def depthwise(layout: str, kernel: int, stride: int, height: int, width: int) -> Case:
    attrs = {"channels": 5, "kernel": kernel, "stride": stride}
    return minitl.oracle.make(
        "depthwise_conv", attrs=attrs, batch=2, height=height, width=width, seed=3, dtype="float32", layout=layout
    )


def sign_mask(layout: str) -> Case:
    attrs = {"channels": 5, "rule": "sign"}
    return minitl.oracle.make("relu6", attrs=attrs, batch=3, height=3, width=5, seed=3, dtype="float32", layout=layout)


def compile_and_run(folder: Path, case: Case | None, source: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Compile `source` with the header of `case` and `check.c`, without a single warning, and run it."""
    include = ["-include", str(folder / "case.h")] if case else []
    write_header(case or depthwise("nhwc", 3, 1, 5, 3), folder / "case.h")
    flags = (*flags, "-I", str(folder))
    program = folder / "program"
    command = [COMPILER, *STRICT, *flags, *include, str(source), str(folder / "check.c"), "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return subprocess.run([program], capture_output=True, text=True)


def wrong_tensors(done: subprocess.CompletedProcess[str]) -> list[str]:
    return re.findall(r"^WRONG (\w+)", done.stdout, re.MULTILINE)


@needs_compiler
@SHAPES
@EITHER_LAYOUT
def test_a_right_depthwise_convolution_passes(
    tmp_path: Path, layout: str, kernel: int, stride: int, height: int, width: int
) -> None:
    case = depthwise(layout, kernel, stride, height, width)
    done = compile_and_run(tmp_path, case, SOURCES / "depthwise.c")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 3


@needs_compiler
@pytest.mark.parametrize(
    ("fault", "tensors"),
    [
        (1, ["OUTPUT", "GRAD_INPUT_X", "GRAD_PARAM_WEIGHT"]),
        (2, ["GRAD_PARAM_WEIGHT"]),
        (3, ["GRAD_INPUT_X"]),
    ],
)
@EITHER_LAYOUT
def test_a_wrong_depthwise_convolution_fails(tmp_path: Path, layout: str, fault: int, tensors: list[str]) -> None:
    done = compile_and_run(tmp_path, depthwise(layout, 3, 2, 7, 5), SOURCES / "depthwise.c", f"-DFAULT={fault}")
    assert done.returncode == 1
    assert wrong_tensors(done) == tensors
    assert ("got nan" in done.stdout) == (fault == 2)


@needs_compiler
def test_the_wrong_layout_fails(tmp_path: Path) -> None:
    case = depthwise("nchw", 3, 1, 5, 5)
    done = compile_and_run(tmp_path, replace(case, layout="nhwc", attrs={**case.attrs}), SOURCES / "depthwise.c")
    assert done.returncode == 1


@needs_compiler
@pytest.mark.parametrize(("fault", "tensors"), [(0, []), (1, ["KEPT_MASK"]), (2, ["KEPT_MASK"]), (3, ["OUTPUT"])])
@EITHER_LAYOUT
def test_packed_masks_are_compared_bit_by_bit(tmp_path: Path, layout: str, fault: int, tensors: list[str]) -> None:
    done = compile_and_run(tmp_path, sign_mask(layout), SOURCES / "sign_mask.c", f"-DFAULT={fault}")
    assert wrong_tensors(done) == tensors
    assert done.returncode == bool(tensors)


@needs_compiler
def test_what_the_checker_lets_pass(tmp_path: Path) -> None:
    done = compile_and_run(tmp_path, None, SOURCES / "edges.c")
    assert done.returncode == 0, done.stderr


@needs_compiler
@pytest.mark.parametrize("flag", ["-ffast-math", "-ffinite-math-only"])
def test_the_checker_does_not_compile_where_nan_would_pass(tmp_path: Path, flag: str) -> None:
    write_header(sign_mask("nhwc"), tmp_path / "case.h")
    done = subprocess.run(
        [COMPILER, "-std=c99", flag, "-c", "check.c", "-o", "check.o"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "NaN would pass" in done.stderr


@needs_compiler
@pytest.mark.parametrize(
    "pattern",
    ["*conv*", "*norm*", "*relu*", "*hard*", "*squeeze*", "*pool*", "*linear*", "*cross*", "adam*", "irb*", "network*"],
)
def test_headers_of_all_kinds_of_cases_compile(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "main.c").write_text('#include "case.h"\nint main(void) { return 0; }\n')
    cases = list(minitl.oracle.cases(pattern))
    for number, case in enumerate(cases[:: max(1, len(cases) // 4)]):
        write_header(case, tmp_path / "case.h")
        for step in STEPS if number == 0 else STEPS[number % len(STEPS) :][:1]:
            subprocess.run([COMPILER, *STRICT, *step.split(), "-fsyntax-only", "main.c"], cwd=tmp_path, check=True)
    assert cases


def arrays_in(text: str) -> dict[str, np.ndarray]:
    """The arrays of a header, by their C names."""
    found = re.findall(r"static const (\w+) (\w+)\[(\d+)\] = \{ /\* .*? \*/\n(.*?)\n\};", text, re.DOTALL)
    arrays = {}
    for kind, name, count, body in found:
        numbers = body.replace("\n", " ").rstrip(",").split(",")
        parse = float.fromhex if kind == "float" else lambda number: int(number, 0)
        values = [parse(number.strip().removesuffix("f") if kind == "float" else number.strip()) for number in numbers]
        arrays[name] = np.array(values)
        assert len(values) == int(count)
    return arrays


@EITHER_LAYOUT
def test_a_header_holds_what_the_case_holds(layout: str) -> None:
    case = sign_mask(layout)
    arrays = arrays_in(header(case))
    for name in (n for n in case.tensors if not n.startswith("tol.")):
        values = case.tensors[name].ravel()
        assert np.array_equal(
            arrays.pop(identifier(name)), values.astype("float32") if values.dtype.kind == "f" else values
        )
    assert all(name.startswith("BOUND_") for name in arrays)


def test_a_bound_covers_the_rounding_of_the_expected_value_and_hardly_more() -> None:
    case = depthwise("nhwc", 3, 1, 5, 3)
    arrays = arrays_in(header(case))
    for name in ("output", "grad_input.x", "grad_param.weight"):
        expected, tolerance = case.tensors[name].ravel(), case.tensors[f"tol.f32.{name}"].ravel()
        off = np.abs(arrays[identifier(name)] - expected)
        bound = arrays[f"BOUND_{identifier(name)}"]
        assert (off > 0).any()
        assert (bound >= tolerance + off).all()
        assert (bound <= (tolerance + off) * (1 + 2**-22) + 1e-44).all()


def test_the_same_case_gives_the_same_bytes(tmp_path: Path) -> None:
    for file in ("a.h", "b.h"):
        write_header(sign_mask("nchw"), tmp_path / file)
    assert (tmp_path / "a.h").read_bytes() == (tmp_path / "b.h").read_bytes()
    assert b"\r" not in (tmp_path / "a.h").read_bytes()


def test_names_cannot_break_out_of_their_comment_or_macro() -> None:
    case = replace(sign_mask("nhwc"), name='x */ int evil;\n#include "/etc/passwd" é')
    lines = header(case).splitlines()
    assert lines[0].startswith("/* minitl-oracle case x __ int evil___include __etc_passwd_ _, generated by")
    assert [line for line in lines if line.startswith("#include")] == ['#include "minitl_oracle.h"']
    assert lines[-1] == "#endif /* MINITL_CASE_X_INT_EVIL_INCLUDE_ETC_PASSWD__H */"


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39, 0.1])
def test_a_float32_program_is_not_given_what_is_no_float32(value: float) -> None:
    case = sign_mask("nhwc")
    x = case.tensors["input.x"].astype("float64")
    x.flat[3] = value
    with pytest.raises(minitl.MinitlError):
        header(replace(case, tensors={**case.tensors, "input.x": x}))


def test_axes_have_the_names_of_the_order_that_weights_are_in() -> None:
    (case,) = minitl.oracle.cases("conv-bias", weights="hwio", layout="nchw")
    (network,) = minitl.oracle.cases("network-ft-all*")
    (bases,) = minitl.oracle.cases("subspace_conv-fixed-k1")
    (norm,) = minitl.oracle.cases("batch_norm-v2")
    (linear,) = minitl.oracle.cases("linear")
    (steps,) = minitl.oracle.cases("adam")
    for of, name, axes in (
        (case, "grad_param.weight", "row, column, in, out"),
        (case, "output", "n, c, h, w"),
        (network, "param_after.stem.weight", "out, in, row, column"),
        (bases, "buffer.basis_h", ""),
        (norm, "kept.x_hat", "n, h, w, c"),
        (linear, "kept.x", "n, c"),
        (linear, "grad_input.x", "n, c"),
        (steps, "input.gradients", ""),
    ):
        (said,) = re.findall(rf'\{{"{re.escape(name)}", .*?, .*?, .*?, "(.*?)"', header(of))
        assert said == axes


# A table of cases, and answers that the check reads


def run_table(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Export the 3x3 depthwise cases, compile the program that runs through them, and run it."""
    options = ["--format", "c"] * (not (folder / "ref" / "cases.h").exists())
    if options:
        assert cli.main(["oracle", "export", str(folder / "ref"), "depthwise_conv-k[35]*", *options]) == 0
    program, ref = folder / "program", folder / "ref"
    sources = [str(SOURCES / "table.c"), str(ref / "check.c")]
    subprocess.run([COMPILER, *STRICT, *flags, "-I", str(ref), *sources, "-o", str(program), "-lm"], check=True)
    return subprocess.run([program], capture_output=True, text=True)


@needs_compiler
def test_one_program_runs_through_a_table_of_cases(tmp_path: Path) -> None:
    done = run_table(tmp_path)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("ok ") == 12
    assert "ok    depthwise_conv-k5-s2 grad_param.weight: 0 of" in done.stdout
    wrong = run_table(tmp_path, "-DFAULT=1")
    assert wrong.returncode == 1
    assert re.search(r"WRONG depthwise_conv-k3-s1 output: .* at \(n, h, w, c\) = \(\d+, \d+, \d+, \d+\)", wrong.stdout)
    assert re.search(
        r"\(1 nan, 0 inf\); worst .*: got nan, expected [^,]*$", run_table(tmp_path, "-DFAULT=2").stdout, re.M
    )
    forgotten = run_table(tmp_path, "-DFAULT=3")
    assert forgotten.returncode == 1
    assert forgotten.stdout.count("grad_param.weight: never compared") == forgotten.stdout.count("WRONG") == 4


@needs_compiler
@pytest.mark.parametrize(("fault", "said"), [(0, ""), (1, "filter flipped"), (2, "1 nan of")])
def test_what_a_c_program_prints_is_an_answer(
    tmp_path: Path, fault: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run_table(tmp_path, "-DMINITL_ANSWERS", f"-DFAULT={fault}")
    (tmp_path / "log.txt").write_text(done.stdout)
    assert cli.main(["oracle", "check", str(tmp_path / "ref"), str(tmp_path / "log.txt")]) == (fault != 0)
    out = capsys.readouterr().out
    assert "4 of 4 cases right" in out if fault == 0 else out.count(said) == 4


@needs_compiler
def test_an_array_that_is_too_small_is_wrong(tmp_path: Path) -> None:
    source = tmp_path / "small.c"
    source.write_text("static float y[3];\nint main(void) { return MINITL_CHECK(OUTPUT, y) != 0; }\n")
    done = compile_and_run(tmp_path, depthwise("nhwc", 3, 1, 5, 3), source)
    assert done.returncode == 1
    assert "WRONG OUTPUT: an array of 3 elements, 150 are expected" in done.stdout


@needs_compiler
@pytest.mark.parametrize(("flag", "left"), [("", ["output", "grad_param.weight"]), ("-DMINITL_GRAD_INPUT", [])])
def test_what_is_never_compared_is_wrong(tmp_path: Path, flag: str, left: list[str]) -> None:
    """Of the steps that the program asks for; what is kept may be left out."""
    source = tmp_path / "forgetful.c"
    compared = "MINITL_CHECK(GRAD_INPUT_X, GRAD_INPUT_X)"
    source.write_text(f"int main(void) {{ int wrong = {compared}; return 10 * wrong + MINITL_DONE(); }}\n")
    done = compile_and_run(tmp_path, depthwise("nhwc", 3, 1, 5, 3), source, *filter(None, [flag]))
    assert done.returncode == len(left)
    assert re.findall(r"^WRONG (.*): never compared$", done.stdout, re.MULTILINE) == left


# The page that explains it


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def verdicts(text: str) -> list[tuple[str, str]]:
    """What a run prints, without the figures that another compiler may change."""
    return re.findall(r"^ *(ok|WRONG|exit code \d) *(\w*)", text, re.MULTILINE)


@needs_compiler
def test_the_page_on_c_does_what_it_says(tmp_path: Path) -> None:
    (program,), (export, build) = blocks("c"), blocks("sh")
    aliases = f'minitl() {{ "{sys.executable}" -m minitl "$@"; }}\ncc() {{ "{shutil.which(COMPILER)}" "$@"; }}\n'
    printed = ""
    for pad in ("(KERNEL - 1) / 2", "(KERNEL - 1) / 2 - 1"):
        assert "#define PAD ((KERNEL - 1) / 2)\n" in program
        (tmp_path / "depthwise.c").write_text(program.replace("(KERNEL - 1) / 2", pad))
        script = aliases + export + build
        done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True)
        assert set(done.stderr.splitlines()) <= {AT_WORK}
        printed += done.stdout
    assert "exit code 0" in printed
    assert "exit code 1" in printed
    compile_again = build.splitlines()[0].replace("cc ", "cc -DMINITL_ANSWERS ")
    answers = f"{aliases}{compile_again}\n./depthwise > log.txt; minitl oracle check ref log.txt"
    done = subprocess.run(["sh", "-c", answers], cwd=tmp_path, capture_output=True, text=True)
    (cause,) = re.findall(r"^    (\[likely: padding .*\])$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert done.stdout.count(cause) == 3
    assert verdicts(printed) == verdicts(PAGE.read_text(encoding="utf-8").partition("Compile the two files")[2])


def test_the_page_on_python_does_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    (script,) = blocks("python")
    page = PAGE.read_text(encoding="utf-8").partition("## In C")[0]
    exec(script, {"__name__": "__main__"})
    assert capsys.readouterr().out.startswith("hard_swish-sign: ok, 3 tensors")
    assert "hard_swish-sign: ok, 3 tensors" in page
    with pytest.raises(minitl.oracle.Mismatch) as wrong:
        exec(script.replace("x >= 0", "x > 0"), {"__name__": "__main__"})
    assert verdicts(str(wrong.value)) == verdicts(page) == [("WRONG", "grad_input"), ("WRONG", "kept")]


def test_the_example_for_test_suites_passes_as_it_is_copied(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (example,), (script,) = blocks("pytest"), blocks("python")
    implementation = script.partition("\n\nfor case in")[0]
    for name, strict in (("mine", ">="), ("wrong", ">")):
        (tmp_path / f"{name}.py").write_text(implementation.replace("x >= 0", f"x {strict} 0"))
        (tmp_path / f"test_{name}.py").write_text(example.replace("from mine", f"from {name}"))
    command = [sys.executable, "-m", "pytest", "-q", "-rfp", "-p", "no:cacheprovider"]
    plain = {**os.environ, "PYTEST_ADDOPTS": ""}
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True)
    told = re.findall(r"^(PASSED|FAILED) test_(\w+)\.py::\S+\[(.+?)\]", done.stdout, re.MULTILINE)
    expected = [
        (verdict, name, f"hard_swish-sign-{layout}")
        for verdict, name in (("PASSED", "mine"), ("FAILED", "wrong"))
        for layout in ("nhwc", "nchw")
    ]
    assert sorted(told) == sorted(expected), done.stdout
