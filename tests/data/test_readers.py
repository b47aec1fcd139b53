"""Every format gives the same pictures; what is broken is refused by name."""

from __future__ import annotations

import io
import os
import struct
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event
from typing import Any

import makers
import numpy as np
import pytest
from fuzz import FUZZ, noisy
from PIL import Image

from minitl import data
from minitl.arrays import Array
from minitl.data.image import check_image, read_image
from minitl.errors import DataError, MinitlError

IMAGES, LABELS = makers.pictures(size=32)
ORDER = [*range(6, 18), *range(6)]  # a third is for testing, and comes after the rest
BY_CLASS = [i for label in range(3) for i in range(18) if LABELS[i] == label]


@pytest.mark.parametrize("packed", [False, True])
def test_npz(tmp_path: Path, packed: bool) -> None:
    source = data.load(makers.npz(tmp_path / "a.npz", IMAGES, LABELS, packed=packed, classes=np.array(makers.CLASSES)))
    assert source.classes == makers.CLASSES
    check(source, list(range(18)))


@pytest.mark.parametrize("fine", [False, True])
def test_cifar(tmp_path: Path, fine: bool) -> None:
    source = data.load(makers.cifar(tmp_path, IMAGES, LABELS, fine=fine))
    assert source.classes[:2] == (("0", "1") if fine else ("airplane", "automobile"))
    assert len(source.classes) == (100 if fine else 10)
    check(source, ORDER)
    assert source.held_out is not None
    assert source.held_out.tolist() == [False] * 12 + [True] * 6


def test_cifar_takes_its_names_from_its_own_file(tmp_path: Path) -> None:
    makers.cifar(tmp_path, IMAGES, LABELS)
    (tmp_path / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    assert data.load(tmp_path).classes == tuple("abcdefghij")


@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, packed: bool) -> None:
    grey = np.repeat(IMAGES[..., 1:2], 3, axis=3)
    source = data.load(makers.idx(tmp_path, IMAGES, LABELS, packed=packed))
    check(source, list(range(18)), grey)
    assert source.held_out is not None
    assert source.held_out.tolist() == [True] * 6 + [False] * 12
    one = data.load(next(tmp_path.glob("train-images*")))
    assert (len(one), one.held_out) == (12, None)


def test_folder(tmp_path: Path) -> None:
    source = data.load(makers.folder(tmp_path, IMAGES, LABELS))
    assert source.classes == makers.CLASSES
    check(source, BY_CLASS)


def test_folder_with_its_own_parts(tmp_path: Path) -> None:
    makers.folder(tmp_path / "train", IMAGES[:12], LABELS[:12])
    makers.folder(tmp_path / "val", IMAGES[12:], LABELS[12:])
    source = data.load(tmp_path)
    assert source.held_out is not None
    assert (len(source), source.held_out.sum(), source.classes) == (18, 6, makers.CLASSES)


def test_folder_passes_over_what_is_no_image_and_looks_below(tmp_path: Path) -> None:
    makers.folder(tmp_path, IMAGES, LABELS)
    (tmp_path / "red" / "notes.txt").write_text("no image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "red" / ".hidden.png").write_text("no image either")
    (tmp_path / "empty").mkdir()
    (tmp_path / "red" / "below").mkdir()
    Image.fromarray(IMAGES[0]).save(tmp_path / "red" / "below" / "z.PNG")
    assert (len(data.load(tmp_path)), data.load(tmp_path).classes) == (19, makers.CLASSES)


def check(source: data.Source, order: list[int], images: Array = IMAGES) -> None:
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == LABELS[order].tolist()
    for place, index in enumerate(order):
        got = source.read(place)
        assert got.dtype == np.uint8
        assert np.array_equal(got, images[index])


# Names, kinds of pixels and labels of .npz


@pytest.mark.parametrize("names", [("x_train", "y_train", "x_test", "y_test"),
                                   ("train_images", "train_labels", "test_images", "test_labels")])  # fmt: skip
def test_npz_with_a_part_for_testing(tmp_path: Path, names: tuple[str, str, str, str]) -> None:
    np.savez(
        tmp_path / "a.npz", **dict(zip(names, (IMAGES[6:], LABELS[6:, None], IMAGES[:6], LABELS[:6]), strict=True))
    )
    source = data.load(tmp_path / "a.npz")
    check(source, ORDER)
    assert source.held_out is not None
    assert source.held_out.sum() == 6


def test_npz_with_grey_and_floating_point_pixels(tmp_path: Path) -> None:
    grey = IMAGES[..., 1]
    for number, images in enumerate((grey, grey[..., None], (grey / 255).astype("f4"), (grey / 255).astype(">f8"))):
        source = data.load(makers.npz(tmp_path / f"{number}.npz", images, LABELS))
        check(source, list(range(18)), np.repeat(grey[..., None], 3, axis=3))


def test_npz_with_named_labels(tmp_path: Path) -> None:
    source = data.load(makers.npz(tmp_path / "a.npz", IMAGES, np.array(makers.CLASSES)[LABELS]))
    assert source.classes == makers.CLASSES
    check(source, list(range(18)))


# Image files


def saved(tmp_path: Path, image: Any, suffix: str, **options: Any) -> Array:
    path = tmp_path / f"image{suffix}"
    image.save(path, **options)
    return read_image(path)


def test_transparent_shows_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    assert saved(tmp_path, image, ".png").tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    assert saved(tmp_path, image, ".png")[0, :, 0].tolist() == [0, 1, 255]


def test_exif_says_which_way_is_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = saved(tmp_path, Image.fromarray(IMAGES[0][:16]), ".png", exif=exif)
    assert np.array_equal(turned, np.rot90(IMAGES[0][:16], -1))


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".bmp", ".gif", ".tiff", ".ppm"])
def test_the_usual_formats_are_read(tmp_path: Path, suffix: str) -> None:
    got = saved(tmp_path, Image.new("RGB", (8, 8), (200, 100, 50)), suffix)
    assert got.shape == (8, 8, 3)
    assert np.abs(got.astype(int) - (200, 100, 50)).max() <= 4


# What is refused


def bomb(path: Path) -> None:
    """A PNG of a few hundred bytes that says it has 10^5 x 10^5 pixels."""
    Image.new("RGB", (8, 8)).save(path)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 100_000, 100_000)
    path.write_bytes(raw)


def replaced(path: Path, **members: bytes) -> None:
    """An .npz whose members are these bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, raw in members.items():
            archive.writestr(f"{name}.npy", raw)


def npy(array: Array, **options: Any) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def claims(shape: str) -> bytes:
    """A .npy whose header says that shape, and that holds nothing."""
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def huge_zip(path: Path) -> None:
    """Says that its images decompress to 2^60 bytes."""
    replaced(path, images=claims("(1152921504606846976, 1, 1)"), labels=npy(LABELS))
    raw = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        small = struct.pack("<I", archive.infolist()[0].file_size)
    extra = struct.pack("<HHQ", 1, 8, 2**60 + 128)
    at = raw.index(b"PK\x01\x02")
    entry = bytearray(raw[at:])
    where = entry.index(small, 20)
    entry[where : where + 4] = b"\xff\xff\xff\xff"
    entry[30:32] = struct.pack("<H", len(extra))
    entry[46 + 10 : 46 + 10] = extra
    end = entry.index(b"PK\x05\x06")
    entry[end + 12 : end + 16] = struct.pack("<I", struct.unpack("<I", entry[end + 12 : end + 16])[0] + len(extra))
    path.write_bytes(raw[:at] + bytes(entry))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "nothing there": (lambda p: p, "there is no such file or folder"),
    "an empty folder": (lambda p: p.mkdir(), "expected a folder per class"),
    "one class only": (lambda p: makers.folder(p, IMAGES[:1], LABELS[:1]), "2 classes, got those of blue alone"),
    "one label only": (lambda p: np.savez(p, images=IMAGES[:3], labels=[0, 0, 0]), "got those of 0 alone"),
    "a file of another kind": (lambda p: p.write_text("x"), "expected a folder per class, an .npz"),
    "a folder for training only in name": (
        lambda p: (makers.folder(p / "test", IMAGES, LABELS), (p / "train").mkdir()), "holds no image in `train`"),
    "objects": (lambda p: np.savez(p, images=IMAGES, labels=np.array([{}] * 18)), "expected a plain array of numbers"),
    "pickled images": (
        lambda p: replaced(p, images=npy(np.array([print])), labels=npy(LABELS)), "expected a plain array of numbers"),
    "more than the disk holds": (huge_zip, "has no room"),
    "a claim": (lambda p: replaced(p, images=claims("(10**9, 9, 9)"), labels=npy(LABELS)), "expected a plain array"),
    "a claim of nothing": (
        lambda p: replaced(p, images=claims("(1000000000000, 0, 9)"), labels=npy(LABELS)), "of 1 to 16384 pixels"),
    "no zip": (lambda p: p.write_bytes(b"PK"), "is not an .npz archive"),
    "other names": (lambda p: np.savez(p, a=IMAGES), "expected arrays `images` and `labels`"),
    "channels first": (lambda p: np.savez(p, images=np.zeros((4, 3, 9, 9), "u1"), labels=LABELS[:4]), "channels last"),
    "too few labels": (lambda p: np.savez(p, images=IMAGES, labels=LABELS[:3]), "expected 18 labels"),
    "negative labels": (lambda p: np.savez(p, images=IMAGES, labels=LABELS - 1), "expected labels from 0"),
    "a label like 2^62": (lambda p: np.savez(p, images=IMAGES, labels=LABELS * 2**61), "expected labels from 0 to"),
    "a class without a name": (lambda p: np.savez(p, images=IMAGES, labels=LABELS, classes=["a", "b"]), "from 0 to 1"),
    "Fortran order": (lambda p: np.savez(p, images=np.asfortranarray(IMAGES), labels=LABELS), "Fortran order"),
    "half a record": (
        lambda p: (makers.cifar(p, IMAGES, LABELS), os.truncate(p / "test_batch.bin", 5000)), "1927 bytes over"),
    "an empty record file": (
        lambda p: (makers.cifar(p, IMAGES, LABELS), os.truncate(p / "test_batch.bin", 0)), "got 0 of 32 x 32"),
    "an IDX file cut": (
        lambda p: (makers.idx(p, IMAGES, LABELS), os.truncate(p / "train-images-idx3-ubyte", 99)), "12,304 bytes"),
    "no labels": (
        lambda p: (makers.idx(p, IMAGES, LABELS), os.remove(p / "t10k-labels-idx1-ubyte")), "has no t10k-labels"),
    "gzip cut": (
        lambda p: (makers.idx(p, IMAGES, LABELS, packed=True), os.truncate(p / "train-images-idx3-ubyte.gz", 999)),
        "cannot be decompressed"),
    "a pipe": (
        lambda p: (makers.idx(p, IMAGES, LABELS), os.remove(p / "train-labels-idx1-ubyte"),
                   os.mkfifo(p / "train-labels-idx1-ubyte")), "is not a regular file"),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_broken_data_are_refused(what: str, tmp_path: Path) -> None:
    make, told = BROKEN[what]
    npz = {"objects", "pickled images", "more than the disk holds", "a claim", "a claim of nothing", "no zip"}
    npz |= {"other names", "channels first", "too few labels", "negative labels", "a label like 2^62"}
    npz |= {"a class without a name", "Fortran order", "one label only"}
    path = tmp_path / ("data.npz" if what in npz else "data")
    make(path)
    with pytest.raises(DataError, match="(?s)" + told.replace("(", r"\(").replace(".", r"\.")):
        data.load(path)


@pytest.mark.parametrize("name", ["\0", "x" * 5000])
def test_a_path_that_cannot_be_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        data.load(name)


def test_images_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    makers.folder(tmp_path, IMAGES[:6], LABELS[:6])
    bomb(tmp_path / "blue" / "a.png")
    (tmp_path / "blue" / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.fromarray(IMAGES[0]).save(tmp_path / "blue" / "c.png")
    os.truncate(tmp_path / "blue" / "c.png", 900)
    source = data.load(tmp_path)
    for index, told in ((2, "a.png"), (3, "b.png"), (4, "c.png")):
        with pytest.raises(DataError, match=f"{told}: is not an image that can be read"):
            source.read(index)
    with pytest.raises(DataError, match="can be read: cannot identify image file; remove it"):
        source.read(3)


def test_who_reads_in_threads_is_warned_afterwards_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two read at once, and the first to begin is the first to end."""
    makers.folder(tmp_path, *makers.pictures(1))
    path = next(tmp_path.rglob("*.png"))
    both, one_ended, open_image, before = Barrier(2), Event(), Image.open, [*warnings.filters]

    def opening(*arguments: Any, **options: Any) -> Any:
        if both.wait(60) > 0:
            one_ended.wait(60)
        return open_image(*arguments, **options)

    def check(_: int) -> None:
        check_image(path)
        one_ended.set()

    monkeypatch.setattr(Image, "open", opening)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(check, range(2)))
    assert [*warnings.filters] == before


def test_nothing_outside_the_folder_is_touched(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    makers.folder(secret, IMAGES, LABELS)
    inner = makers.folder(tmp_path / "data", IMAGES, LABELS)
    (inner / "red" / "link.png").symlink_to(secret / "red" / "0002.png")
    source = data.load(inner)
    with pytest.raises(DataError, match="link that leads out of the folder"):
        source.read(len(source) - 1)
    (inner / "yellow").symlink_to(secret / "red")
    with pytest.raises(DataError, match="link that leads out of the folder"):
        data.load(inner)


def test_floating_point_pixels_beyond_0_to_1_are_refused_when_they_are_read(tmp_path: Path) -> None:
    images = IMAGES / 255
    images[3, 0, 0, 0] = np.nan
    images[4] *= 255
    source = data.load(makers.npz(tmp_path / "a.npz", images, LABELS))
    source.read(2)
    for index in (3, 4):
        with pytest.raises(DataError, match=f"image {index}: expected floating point pixels from 0 to 1"):
            source.read(index)


def test_temporary_files_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    data.load(makers.npz(tmp_path / "a.npz", IMAGES, LABELS, packed=True)).read(0)
    assert list((tmp_path / "tmp").iterdir()) == []


# Noise: whatever a file holds, what is raised is minitl's


SEEDS: dict[str, Callable[[Path], Any]] = {
    "npz": lambda p: makers.npz(p / "a.npz", IMAGES[:6], LABELS[:6]),
    "npz packed": lambda p: makers.npz(p / "a.npz", IMAGES[:6], LABELS[:6], packed=True, classes=np.array(["a"] * 3)),
    "cifar": lambda p: makers.cifar(p, IMAGES[:6], LABELS[:6]),
    "idx": lambda p: makers.idx(p, IMAGES[:6], LABELS[:6]),
    "idx packed": lambda p: makers.idx(p, IMAGES[:6], LABELS[:6], packed=True),
    **{
        suffix: lambda p, suffix=suffix: [Image.fromarray(IMAGES[0]).save(p / f"{n}{suffix}") for n in "ab"]
        for suffix in (".png", ".jpg", ".webp", ".gif", ".tiff", ".bmp", ".ppm")
    },
}  # fmt: skip


def read_or_refuse(path: Path) -> None:
    """Looking into a file refuses only what reading refuses; it may pass what a decoder stumbles over."""
    try:
        check_image(path)
    except MinitlError:
        with pytest.raises(MinitlError):
            read_image(path)
        raise
    read_image(path)


@pytest.mark.parametrize("kind", SEEDS)
def test_noise_raises_nothing_else(kind: str, tmp_path: Path) -> None:
    SEEDS[kind](tmp_path)
    whole = {path: path.read_bytes() for path in sorted(tmp_path.iterdir())}
    rng, told = np.random.default_rng(1), []
    for _ in range(FUZZ):
        for path, raw in whole.items():
            path.write_bytes(noisy(raw, rng))
        try:
            if kind.startswith("."):
                read_or_refuse(next(iter(whole)))
            else:
                source = data.load(next(iter(whole)) if "npz" in kind else tmp_path)
                for index in range(min(len(source), 8)):
                    assert source.read(index).dtype == np.uint8
        except MinitlError as error:
            told.append(str(error))
    assert told
    assert "\n" not in "".join(told)
