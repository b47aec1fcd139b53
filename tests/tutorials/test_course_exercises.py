"""Checks say "right" to what is right, name the usual mistakes, and let nothing else through."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import render
from course.exercise import EXERCISES, Verdict, check, find, hint, judge
from course_sources import (
    ALL,
    TUTORIALS,
    Checked,
    also_wrong,
    functions_of,
    mistakes,
    mistakes_module,
    mutants,
    solution,
)
from hypothesis import settings

SEEDS = range(min(20, settings().max_examples // 2))  # of several draws each; all by the thorough profile
EVERY = pytest.mark.parametrize("call", ALL.values(), ids=list(ALL))


def judged(call: Checked, code: str, seed: int = 0) -> Verdict:
    return judge(call.exercise, *functions_of(code, call.functions, f"<{call.exercise}>"), seed=seed)


@EVERY
def test_an_exercise_is_complete(call: Checked) -> None:
    found = find(call.exercise)
    assert found is not None
    assert found.functions == call.functions
    assert len(found.hints) == 2
    assert all(len(said) > 20 for said in found.hints)
    assert len(mistakes(call)) >= 3


def test_no_check_solution_or_mistake_is_without_its_exercise() -> None:
    for path in TUTORIALS:
        number = path.name[:2]
        find(f"{int(number)}a")
        of_tutorial = {name for name, call in ALL.items() if call.number == number}
        assert {name for name in EXERCISES if name[:-1] == str(int(number))} == of_tutorial
        if of_tutorial:
            assert set(mistakes_module(number).MISTAKES) == of_tutorial
    numbers = {f"{path.name[:2]}.py" for path in TUTORIALS}
    for folder, prefix in [("solutions", ""), ("course", "checks_")]:
        files = {path.name for path in (render.HERE / folder).glob(f"{prefix}[0-9][0-9].py")}
        assert files <= {prefix + name for name in numbers}
    assert {path.name for path in Path(__file__).parent.glob("mistakes_*.py")} <= {"mistakes_" + n for n in numbers}


@EVERY
def test_a_stub_is_not_written_yet(call: Checked) -> None:
    stubs = render.stubs(call.code)
    assert set(call.functions) <= set(stubs)
    verdict = judged(call, "\n".join(map(render.ast.unparse, stubs.values())))
    assert verdict.state.startswith("not written yet, as it should be at first")


@EVERY
def test_a_solution_is_right(call: Checked) -> None:
    for seed in SEEDS:
        verdict = judged(call, solution(call), seed)
        assert verdict.right, f"seed {seed}: {verdict}"


@EVERY
def test_a_usual_mistake_is_told_in_its_own_words(call: Checked) -> None:
    wrong = mistakes(call)
    for sentence, code in wrong.items():
        for seed in SEEDS:
            verdict = judged(call, code, seed)
            assert not verdict.right, f"{sentence!r} passes"
            said = " ".join(str(verdict).split())
            assert "could not be compared" not in said, verdict
            assert [s for s in wrong if s in said] == [sentence], f"seed {seed}, {sentence!r}: {verdict}"


@EVERY
def test_another_wrong_attempt_is_told(call: Checked) -> None:
    for code in also_wrong(call):
        for seed in SEEDS:
            verdict = judged(call, code, seed)
            assert verdict.state != "right", f"this passes:\n{code}"
            assert verdict.state != "not yet right" or "could not be compared" not in verdict.detail, verdict


@EVERY
def test_a_solution_with_one_thing_changed_is_not_right(call: Checked) -> None:
    tried = list(mutants(call))
    assert tried
    survived = [what for what, code in tried if judged(call, code).right]
    assert not survived


def wrongs(call: Checked) -> dict[str, tuple[Callable[..., Any], ...]]:
    """Results that are wrong whatever the exercise: constants, the arguments, the right result transposed."""
    right = functions_of(solution(call), call.functions, f"<{call.exercise}>")

    def changed(change: Callable[[Any, tuple[Any, ...]], Any]) -> tuple[Callable[..., Any], ...]:
        return tuple(lambda *a, f=f: change(f(*a), a) for f in right)

    def on_arrays(change: Callable[[Any], Any]) -> tuple[Callable[..., Any], ...]:
        def deep(result: Any) -> Any:
            if isinstance(result, tuple):
                return tuple(map(deep, result))
            return change(result) if isinstance(result, np.ndarray | float | int) else not result

        return changed(lambda result, arguments: deep(result))

    def argument(index: int) -> Callable[[Any, tuple[Any, ...]], Any]:
        return lambda result, arguments: arguments[index] if len(arguments) > index else arguments[-1]

    return {
        "zeros": on_arrays(np.zeros_like),
        "ones": on_arrays(np.ones_like),
        "transposed": on_arrays(lambda a: np.transpose(a) if np.ndim(a) > 1 else -np.asarray(a)),
        "a percent more": on_arrays(lambda a: a * 1.01 + 0.01),
        "first argument": changed(argument(0)),
        "second argument": changed(argument(1)),
    }


@EVERY
def test_wrong_on_principle_is_not_right(call: Checked) -> None:
    for what, functions in wrongs(call).items():
        assert not judge(call.exercise, *functions).right, what


def endless(*arguments: Any) -> Any:
    return endless(*arguments)


def raising(*arguments: Any) -> Any:
    raise ValueError("of the learner's own")


ODD: dict[str, Any] = {
    "returns None": lambda *arguments: None,
    "returns too much": lambda *arguments: (arguments,) * 7,
    "returns text": lambda *arguments: "text",
    "returns an object": lambda *arguments: object(),
    "takes nothing": lambda: 0,
    "raises": raising,
    "never ends": endless,
    "no function": None,
}


@EVERY
@pytest.mark.parametrize("odd", ODD.values(), ids=list(ODD))
def test_a_check_never_raises(call: Checked, odd: Any, capsys: pytest.CaptureFixture[str]) -> None:
    check(call.exercise, *(odd,) * len(call.functions))
    said = capsys.readouterr().out
    assert said.startswith(f"{call.exercise} {', '.join(call.functions)}: ")
    assert ": right." not in said


def test_what_is_unknown_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    check("99z", endless)
    check("", endless)
    hint("no")
    assert capsys.readouterr().out.count("There is no exercise") == 3


def test_hints(capsys: pytest.CaptureFixture[str]) -> None:
    hint("5a")
    hint("5a", 2)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("5a, hint 1 of 2: The slope")
    assert second.startswith("5a, hint 2 of 2: gy times")
    hint("5a", 3)
    assert capsys.readouterr().out == '5a has 2 hints; the last is hint("5a", 2).\n'


def test_where_an_attempt_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    code = "def relu6_backward_from_output(y, gy):\n    a = y\n    return a @ gy[:3]\n"
    verdict = judged(ALL["5a"], code)
    assert verdict.state == "stopped in relu6_backward_from_output, line 2: `return a @ gy[:3]`"
    assert verdict.detail.startswith("ValueError: matmul")


def test_where_a_helper_of_the_attempt_stopped() -> None:
    code = "def relu6_backward_from_output(y, gy):\n    return helper(y)\n\n\n"
    code += "def helper(y):\n    return [1 / 0 for _ in y]\n"
    assert judged(ALL["5a"], code).state == "stopped in helper, line 1: `return [1 / 0 for _ in y]`"


def test_of_two_functions_the_one_that_is_left_is_named() -> None:
    stubs, written = render.stubs(ALL["1a"].code), solution(ALL["1a"])
    one = written + "\n" + render.ast.unparse(stubs["sigmoid_backward"])
    assert judged(ALL["1a"], one).state.startswith("sigmoid_backward is not written yet. Replace its `raise` line")


def test_a_number_that_is_wrong_is_told() -> None:
    code = solution(ALL["1c"]).replace("packed_bytes(m, 1)", "(-(-m // 8))").replace("* channels", "* 7 * channels")
    assert re.fullmatch(r"the number of bytes is \d+, expected \d+\.", judged(ALL["1c"], code).detail)


def test_a_changed_input_is_told() -> None:
    code = "def relu6_backward_from_output(y, gy):\n    gy *= (y > 0) & (y < 6)\n    return gy\n"
    assert "was changed: its owner still needs it" in judged(ALL["5a"], code).detail


def test_a_stub_in_a_notebook_keeps_its_signature() -> None:
    assert inspect.signature(functions_of(solution(ALL["5d"]), ("two_level_error",), "<5d>")[0]).parameters.keys() == {
        "a",
        "c",
    }
