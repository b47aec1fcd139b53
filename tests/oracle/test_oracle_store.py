"""Round trips, and a reader that neither trusts nor falls over anything: exit codes 0, 1 and 2, one line on stderr."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from own import step

from minitl import cli, oracle
from minitl.oracle.store import JSON, TENSORS

NAME = "batch_norm-one-image"


def write(got: dict[str, Any], folder: Path, form: str = "safetensors") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if form == "npz":
        np.savez(folder / "tensors.npz", **got)
    else:
        safetensors.numpy.save_file({n: np.ascontiguousarray(a) for n, a in got.items()}, folder / TENSORS)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of two cases, and one of right answers to them."""
    ref, got = tmp_path / "ref", tmp_path / "got"
    for name in (NAME, "relu6-codes"):
        (case,) = oracle.cases(name, layout="nchw")
        oracle.save(case, ref / name)
        write(step(case, "float32"), got / name)
    return ref, got


def check(ref: Path, got: Path, capsys: pytest.CaptureFixture[str], *more: str) -> int:
    code = cli.main(["oracle", "check", str(ref), str(got), *more])
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == (1 if code == 2 else 0)
    assert code != 2 or not out
    return code


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_what_is_saved_is_loaded(layout: str, tmp_path: Path) -> None:
    for case in oracle.cases("irb-mobiletl-*k3-s1-se", layout=layout):
        oracle.save(case, tmp_path)
        again = oracle.load(tmp_path)
        assert vars(again) | {"tensors": 0} == vars(case) | {"tensors": 0}
        assert again.tensors.keys() == case.tensors.keys()
        for name, tensor in case.tensors.items():
            np.testing.assert_array_equal(again.tensors[name], tensor)
            assert again.tensors[name].flags.owndata
            assert again.tensors[name].dtype == tensor.dtype


def test_a_transposed_array_is_saved_as_it_is_seen(tmp_path: Path) -> None:
    (case,) = oracle.cases("linear")
    weight = case.tensors["param.weight"]
    case.tensors["param.weight"] = np.asfortranarray(weight)
    oracle.save(case, tmp_path)
    np.testing.assert_array_equal(oracle.load(tmp_path).tensors["param.weight"], weight)


def test_right_answers_pass(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ref, got = pair
    assert check(ref, got, capsys) == 0
    assert check(ref / NAME, got, capsys) == 0
    assert check(ref / NAME, got / NAME, capsys) == 0
    for name in (NAME, "relu6-codes"):
        answers = safetensors.numpy.load_file(got / name / TENSORS)
        (got / name / TENSORS).unlink()
        write(answers, got / name, "npz")
    assert check(ref, got, capsys, "--json") == 0


def test_wrong_answers_fail(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ref, got = pair
    answers = safetensors.numpy.load_file(got / NAME / TENSORS)
    for change in ({"output": answers["output"] + 1}, {"output": answers["output"] * np.nan}, {"strange": np.ones(1)}):
        write({**answers, **change}, got / NAME)
        assert check(ref, got, capsys) == 1
        assert cli.main(["oracle", "check", str(ref), str(got), "--json"]) == 1
        report = json.loads(capsys.readouterr().out)
        assert (report["schema"], report["ok"]) == ("minitl-oracle/1", False)
    write({n: a for n, a in answers.items() if not n.startswith("grad")}, got / NAME)
    assert check(ref, got, capsys) == 1
    assert check(ref, got, capsys, "--only", "forward") == 0


def test_what_is_there_is_judged(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A case without an answer is listed; only with --require-all does it fail."""
    ref, got = pair
    for missing in (got / NAME / TENSORS, got / NAME):
        shutil.move(missing, tmp_path / "kept")
        assert check(ref, got, capsys) == 0, missing
        assert check(ref, got, capsys, "--require-all") == 1, missing
        assert cli.main(["oracle", "check", str(ref), str(got), "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert (report["ok"], report["missing"], len(report["cases"])) == (True, [NAME], 1)
        cli.main(["oracle", "check", str(ref), str(got)])
        out = capsys.readouterr().out
        assert f"{NAME}: missing" in out
        assert "1 of 2 cases right, 1 missing" in out
        shutil.move(tmp_path / "kept", missing)
    shutil.rmtree(got / NAME)
    answers = safetensors.numpy.load_file(got / "relu6-codes" / TENSORS)
    write({**answers, "output": answers["output"] + 1}, got / "relu6-codes")
    assert check(ref, got, capsys) == 1
    assert check(ref, got, capsys, NAME) == 2
    assert check(ref, got, capsys, "--op", "relu6") == 1
    assert check(ref, got, capsys, "--method", "ft") == 2


def test_missing_things(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ref, got = pair
    for missing in (ref / NAME / JSON, ref / NAME / TENSORS, ref, got):
        kept = tmp_path / "kept"
        shutil.move(missing, kept)
        assert check(ref, got, capsys) == 2, missing
        shutil.move(kept, missing)
    assert check(ref, got, capsys) == 0
    assert check(tmp_path / "nowhere", got, capsys) == 2
    assert check(got, got, capsys) == 2
    (tmp_path / "empty").mkdir()
    assert check(ref, tmp_path / "empty", capsys) == 2


def move_to(place: str) -> Callable[[Path, dict[str, Any]], Path]:
    """Write the answer to NAME somewhere below GOT, and hand in the folder or file of that place."""

    def write_there(got: Path, answer: dict[str, Any]) -> Path:
        path = got / place
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **answer)
        return path

    return write_there


def separately(got: Path, answer: dict[str, Any]) -> Path:
    """As one does at first: np.save of each result."""
    (got / NAME).mkdir(parents=True)
    for name, array in answer.items():
        np.save(got / NAME / f"{name}.npy", array)
    return got


@pytest.mark.parametrize(
    "place", [separately, *map(move_to, (f"{NAME}/answer.npz", f"{NAME}.npz"))], ids=["npy", "file", "file by name"]
)
def test_an_answer_may_lie_in_several_places(
    place: Callable[[Path, dict[str, Any]], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """GOT, the case's folder in it, or the file itself; REF being all cases or one."""
    ref, got = tmp_path / "ref", tmp_path / "got"
    (case,) = oracle.cases(NAME)
    oracle.save(case, ref / NAME)
    for wrong in (0, 1):
        answer = step(case, "float32")
        path = place(got, {n: a + (wrong if n == "output" else 0) for n, a in answer.items()})
        for where in {path, got, got / NAME} - ({got / NAME} if not (got / NAME).exists() else set()):
            assert check(ref, where, capsys) == wrong, where
            assert check(ref / NAME, where, capsys) == wrong, where
        shutil.rmtree(got)


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([f"{NAME}/output.txt"], f"{NAME} has no tensors.safetensors, .npz, .npy or .bin file; found output.txt"),
        (
            [f"{NAME.replace('_', '-')}/a.npz"],
            f"no folder is named as a case; found 'batch-norm-one-image', did you mean {NAME!r}",
        ),
        ([], "it is empty"),
        ([f"{NAME}/output.npy"], "not a sound .npy file"),
    ],
)
def test_why_no_answer_is_found(
    files: list[str], said: str, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, got = pair
    shutil.rmtree(got)
    got.mkdir()
    for name in files:
        (got / name).parent.mkdir()
        (got / name).write_text("1")
    assert cli.main(["oracle", "check", str(ref), str(got)]) == 2
    assert said in capsys.readouterr().err


def test_a_report_is_printed_as_soon_as_it_is_made(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unreadable answer is held back until one has been read: if none can be, that is all there is to say."""
    ref, got = pair
    (got / NAME / TENSORS).write_text("broken")
    before: list[str] = []
    compare = oracle.Case.compare

    def watched(case: oracle.Case, *given: Any) -> Any:
        before.append(capsys.readouterr().out)
        return compare(case, *given)

    monkeypatch.setattr(oracle.Case, "compare", watched)
    oracle.save(next(oracle.cases("linear", layout="nchw")), ref / "zz")
    write(step(oracle.load(ref / "zz"), "float32"), got / "zz")
    assert cli.main(["oracle", "check", str(ref), str(got)]) == 1
    assert before[0] == ""
    assert "unreadable" in before[1]
    assert "relu6-codes: ok" in before[1]


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8"])
def test_raw_files_are_answers(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Little-endian elements in memory's order, a file per tensor; the dtype is told by the file's size."""
    folder = tmp_path / "got" / "hard_swish-sign"
    folder.mkdir(parents=True)
    (case,) = oracle.cases("hard_swish-sign")
    oracle.save(case, tmp_path / "ref" / case.name)
    for name, array in step(case, "float64" if dtype == "<f8" else "float32").items():
        (folder / f"{name}.bin").write_bytes(array.astype(dtype if array.dtype.kind == "f" else "u1").tobytes())
    assert check(tmp_path / "ref", tmp_path / "got", capsys) == 0
    raw = folder / "output.bin"
    for data, code in ((raw.read_bytes()[::-1], 1), (raw.read_bytes()[:-8], 1), (b"", 1), (b"abc", 2)):
        raw.write_bytes(data)
        assert check(tmp_path / "ref", tmp_path / "got", capsys) == code


def test_the_log_of_a_program_is_an_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = oracle.cases("hard_swish-sign")
    oracle.save(case, tmp_path / "ref" / case.name)
    lines = ["boot", "warning: @ low battery"]
    for name, array in step(case, "float32").items():
        words = array.reshape(-1).astype(">f4" if array.dtype.kind == "f" else "u1")
        form = "f32" if array.dtype.kind == "f" else "u8"
        lines += [f"[0.1] @answer {case.name} {name} {form} {words.size}\r"]
        lines += [f"@ {words[i : i + 1].tobytes().hex()}" for i in range(words.size)]
    log = tmp_path / "serial.log"
    log.write_text("\n".join(lines))
    assert check(tmp_path / "ref", log, capsys) == 0
    log.write_text("\n".join(lines).replace("@ ", "@ f", 3))
    assert check(tmp_path / "ref", log, capsys) == 2
    log.write_text("\n".join(lines[:-1]))
    assert check(tmp_path / "ref", log, capsys) == 2
    (other,) = oracle.cases("relu-exact")
    oracle.save(other, tmp_path / "ref" / other.name)
    log.write_text("\n".join([*lines, f"@answer {other.name} output f32 3", "@ 3f800000"]))
    assert check(tmp_path / "ref", log, capsys) == 1
    shutil.rmtree(tmp_path / "ref" / other.name)
    log.write_text("nothing")
    assert check(tmp_path / "ref", log, capsys) == 2


def test_junit(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    ref, got = pair
    shutil.rmtree(got / NAME)
    answers = safetensors.numpy.load_file(got / "relu6-codes" / TENSORS)
    write({**answers, "output": answers["output"] + 1}, got / "relu6-codes")
    for more, skipped in (((), 1), (("--require-all",), 0)):
        assert check(ref, got, capsys, "--junit", str(tmp_path / "verdicts.xml"), *more) == 1
        suite = Xml.parse(tmp_path / "verdicts.xml").getroot()
        assert [case.get("name") for case in suite] == ["relu6-codes", NAME]
        assert (len(suite.findall("*/skipped")), len(suite.findall("*/failure"))) == (skipped, 2 - skipped)
    assert check(ref, got, capsys, "--junit", str(tmp_path / "no" / "verdicts.xml")) == 2


HOSTILE: list[dict[str, Any]] = [
    {"schema": "minitl-oracle/2"},
    {"schema": None},
    {"case": "../../etc"},
    {"case": "/etc/passwd"},
    {"case": 3},
    {"case": "a" * 4000},
    {"layout": "chwn"},
    {"tensors": []},
    {"tensors": {}},
    {"kept": {}},
    {"kept": [1]},
    {"kept": []},
    {"kept": [{"layer": "", "tensor": "x_hat", "bits": 1, "shape": [10**9, 10**9]}]},
    {"attrs": None},
    {"approximate_gradient": 1},
    {"conventions": "none"},
    {"conventions": {"weights": "chwn"}},
    {"conventions": {"weights": []}},
]


@pytest.mark.parametrize("change", HOSTILE, ids=str)
def test_a_hostile_case_json(
    change: dict[str, Any], pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, got = pair
    path = ref / NAME / JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert check(ref, got, capsys) == 2


@pytest.mark.parametrize("row", [{"rule": None}, {"shape": [2, 5, 3]}, {"shape": [1, 1, 1, 1]}, {"bits": 1}], ids=str)
def test_a_row_that_its_codes_do_not_fit(
    row: dict[str, Any], pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, got = pair
    path = ref / "relu6-codes" / JSON
    about = json.loads(path.read_text())
    about["kept"] = [{name: value for name, value in (about["kept"][0] | row).items() if value is not None}]
    path.write_text(json.dumps(about))
    assert check(ref, got, capsys) == 2


@pytest.mark.parametrize(
    "entry",
    [{"shape": [10**12]}, {"shape": [-1]}, {"shape": "3"}, {"dtype": "object"}, {"sha256": "0" * 64}, {"sha256": None}],
    ids=str,
)
def test_a_tensor_that_is_not_what_case_json_says(
    entry: dict[str, Any], pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, got = pair
    path = ref / NAME / JSON
    about = json.loads(path.read_text())
    about["tensors"]["output"] |= entry
    path.write_text(json.dumps(about))
    assert check(ref, got, capsys) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, '{"schema": "minitl-oracle/1"}', "\ud800"])
def test_a_case_json_that_is_none(text: str, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ref, got = pair
    (ref / NAME / JSON).write_bytes(text.encode("utf-8", "surrogatepass"))
    assert check(ref, got, capsys) == 2


def test_attributes_that_make_no_sense_only_cost_the_guess(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    ref, got = pair
    path = ref / NAME / JSON
    for attrs in ({}, {"channels": 4096, "batch": 10**9, "height": 1, "width": 1}, {"batch": "x"}):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attrs": attrs}))
        assert check(ref, got, capsys) == 0
        answers = safetensors.numpy.load_file(got / NAME / TENSORS)
        write(answers | {"output": answers["output"] + 1}, got / NAME)
        assert check(ref, got, capsys) == 1
        write(answers, got / NAME)


def _corrupted(data: bytes, cut: int, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data[: cut % (len(data) + 1)] if cut else data)
    for at, mask in flips:
        if changed:
            changed[at % len(changed)] ^= mask
    return bytes(changed)


DAMAGE = st.tuples(
    st.one_of(st.just(0), st.integers(1, 10**6)),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), max_size=6),
)


@given(json_damage=DAMAGE, tensor_damage=DAMAGE, got_damage=DAMAGE, npz=st.booleans())
def test_damaged_files_never_pass_nor_crash(
    tmp_path_factory: pytest.TempPathFactory, json_damage: Any, tensor_damage: Any, got_damage: Any, npz: bool
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    (case,) = oracle.cases("global_avg_pool-one-image")
    answers = step(case, "float32")
    oracle.save(case, folder / "ref" / case.name)
    write(answers, folder / "got" / case.name, "npz" if npz else "safetensors")
    files = [folder / "ref" / case.name / JSON, folder / "ref" / case.name / TENSORS]
    files += [folder / "got" / case.name / ("tensors.npz" if npz else TENSORS)]
    before = [file.read_bytes() for file in files]
    for file, damage in zip(files, (json_damage, tensor_damage, got_damage), strict=True):
        file.write_bytes(_corrupted(file.read_bytes(), *damage))
    code = cli.main(["oracle", "check", str(folder / "ref"), str(folder / "got")])
    assert code in (0, 1, 2)
    if files[1].read_bytes() != before[1]:
        assert code == 2
    shutil.rmtree(folder)


def npy(header: bytes, data: bytes = b"") -> bytes:
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    "member",
    [
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}"),
        npy(b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}"),
        npy(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", b"\x80\x04K\x01."),
        npy(b"__import__('os').abort()"),
        b"",
        b"\x93NUMPY",
    ],
)
def test_a_hostile_npz(member: bytes, pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ref, got = pair
    (got / NAME / TENSORS).unlink()
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("output.npy", member)
    (got / NAME / "tensors.npz").write_bytes(data.getvalue())
    assert check(ref, got, capsys) == 1
    assert check(ref, got, capsys, NAME) == 2


def test_pickles_are_refused(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    ref, got = pair
    (got / NAME / TENSORS).unlink()
    np.savez(got / NAME / "tensors.npz", output=np.array([{}], object))
    assert check(ref, got, capsys) == 1
    assert check(ref, got, capsys, NAME) == 2


def test_an_unreadable_answer_fails_its_case_and_hides_no_other(
    pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ref, got = pair
    (got / NAME / TENSORS).write_bytes(b"no such thing")
    junit = tmp_path / "verdicts.xml"
    assert cli.main(["oracle", "check", str(ref), str(got), "--junit", str(junit)]) == 1
    out = capsys.readouterr().out
    assert f"WRONG answer: unreadable: {got / NAME / TENSORS}: not a sound safetensors file" in out
    assert "relu6-codes: ok" in out
    assert "1 of 2 cases right, 1 wrong" in out
    assert len(Xml.parse(junit).findall("*/failure")) == 1
    (got / "relu6-codes" / TENSORS).write_bytes(b"neither")
    assert check(ref, got, capsys) == 2
