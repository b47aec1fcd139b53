"""Files are read only where they are plain, written whole or not at all, and refusals say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from minitl.errors import UsageError
from minitl.files import check_writable, read_bytes, replacing, write_whole


@pytest.fixture
def strange(tmp_path: Path) -> dict[str, Path]:
    """Places no file can be read from, by what is said of them."""
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"1234")
    return {
        "not a plain file": tmp_path / "pipe",  # whose reader would wait for ever
        "cannot read: Is a directory": tmp_path,
        "cannot read: No such file or directory": tmp_path / "dangling",
        "cannot read: Not a directory": tmp_path / "file" / "below",
        "cannot read: File name too long": tmp_path / ("n" * 300),
        "cannot read: embedded null byte": tmp_path / "\0",
        "4 bytes; at most 3 are read": tmp_path / "file",
    }


def test_what_is_no_plain_file_is_told(strange: dict[str, Path]) -> None:
    for message, path in strange.items():
        with pytest.raises(UsageError) as caught:
            read_bytes(path, largest=3)
        assert str(caught.value) == f"{path}: {message}"
    with pytest.raises(UsageError, match="not a plain file"):
        read_bytes(Path("/dev/zero"))  # which would never end


def test_a_file_is_read_and_written_whole(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)  # as long as a name may be
    for data in (b"", b"abc" * 100_000):
        write_whole(path, data)
        assert read_bytes(path) == data
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_was_there_stays_where_writing_is_cut_short(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")

    def write() -> None:
        with replacing(path) as part:
            part.write_bytes(b"ne")
            raise error

    with pytest.raises((UsageError, KeyboardInterrupt)):
        write()
    assert read_bytes(path) == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_is_tried_without_touching_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    check_writable(path)
    assert not list(tmp_path.iterdir())
    path.write_bytes(b"old")
    check_writable(path)
    assert path.read_bytes() == b"old"
    for wrong, why in {
        tmp_path: "Is a directory",
        tmp_path / "nowhere" / "file": "No such file or directory",
        path / "below": "Not a directory",
        tmp_path / ("n" * 300): "File name too long",
        tmp_path / "\0": "embedded null byte",
    }.items():
        with pytest.raises(UsageError) as caught:
            check_writable(wrong)
        assert str(caught.value) == f"{wrong}: cannot write: {why}"
