"""Device files: the shipped ones are complete, a user's own works, and a bad one is refused in one line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from fuzz import FUZZ, noisy_text

from minitl import devices, networks
from minitl.devices.device import FIGURES, MODELS
from minitl.devices.models import ANSWERS
from minitl.devices.work import BOUND, FORWARD, GRAD_WEIGHT, UNKNOWN, Work
from minitl.errors import MinitlError

GOOD = """
name = "board"
title = "A board"
model = "roofline"
[flops_per_s]
value = 2e9
kind = "measured"
source = "a bench"
scope = "float32"
"""
DENSE = Work("here", "conv", FORWARD, (2, 8, 8, 5), (7, 5, 3, 3), (2, 8, 8, 7), 1, 40320, 80640, 10_000, True)


@pytest.mark.parametrize("name", devices.names())
def test_shipped_devices_say_where_every_figure_is_from(name: str) -> None:
    device = devices.get(name)
    assert device.name == name
    assert device.note
    assert set(device.figures) <= set(FIGURES)
    assert all(figure.source and figure.scope and figure.value > 0 for figure in device.figures.values())


def test_every_model_is_there() -> None:
    assert tuple(ANSWERS) == MODELS
    assert {devices.get(name).model for name in devices.names()} == set(MODELS)


def own(folder: Path, text: str) -> devices.Device:
    file = folder / "board.toml"
    file.write_text(text, "utf-8")
    return devices.get(str(file))


def test_a_roofline_is_bound_by_what_takes_longer(tmp_path: Path) -> None:
    said = devices.answer(own(tmp_path, GOOD), DENSE)
    assert (said.kind, said.seconds) == (BOUND, 80640 / 2e9)
    slow = '[bytes_per_s]\nvalue = 1e6\nkind = "measured"\nsource = "a bench"\nscope = "copy"'
    assert devices.answer(own(tmp_path, GOOD + slow), DENSE).seconds == 10_000 / 1e6
    assert devices.answer(own(tmp_path, GOOD.split("[")[0]), DENSE).kind == UNKNOWN


def test_arrays_count_and_give_no_time(tmp_path: Path) -> None:
    bits = devices.answer(devices.get("sas-mram"), DENSE)
    assert (bits.kind, bits.seconds, bits.counts) == (UNKNOWN, None, {"plane_operations": 40320 * 64})
    width = '[row_width]\nvalue = 32\nkind = "derived"\nsource = "assumed"\nscope = "an example"'
    text = GOOD.split("[")[0].replace("roofline", "bit-serial-array") + width
    counts = devices.answer(own(tmp_path, text), DENSE).counts  # sums of 45 products: two rows of 32 each
    assert counts["row_activations"] == 2 * 8 * 8 * 7 * 64 * 2
    training = Work(**{**vars(DENSE), "part": GRAD_WEIGHT})
    assert devices.answer(devices.get("sas-mram"), training).counts["cell_writes"] == 7 * 45 * 8
    frozen = Work(**{**vars(training), "trains_weight": False})
    assert "cell_writes" not in devices.answer(devices.get("sas-mram"), frozen).counts
    assert devices.answer(devices.get("merit"), DENSE).counts == {"vectors": 2 * 8 * 8}
    assert devices.answer(devices.get("merit"), training).counts == {"cell_writes": 7 * 45}


BAD = {
    "name = ": "no TOML file of a device",
    GOOD.replace('name = "board"', ""): "expected name to be a text, got None",
    GOOD.replace("roofline", "magic"): "unknown model of a device 'magic'; choose one of: roofline, ef-train",
    GOOD.replace("[flops_per_s]", "[speed]"): "unknown figure of a device 'speed'; choose one of: name",
    GOOD.replace("value = 2e9", "value = -1"): "expected flops_per_s.value to be a number above 0, got -1",
    GOOD.replace("value = 2e9", "value = nan"): "expected flops_per_s.value to be a number above 0, got nan",
    GOOD.replace("value = 2e9", "value = true"): "expected flops_per_s.value to be a number above 0, got True",
    GOOD.replace('source = "a bench"', ""): "expected [flops_per_s] with value, kind, source and scope",
    GOOD.replace('"measured"', '"guessed"'): "unknown kind of flops_per_s 'guessed'",
    GOOD.replace('scope = "float32"', 'scope = ""'): "expected scope to be a text",
    "flops_per_s = 3\n" + GOOD.split("[")[0]: "expected [flops_per_s] with value, kind, source and scope, got 3",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_a_bad_file_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(MinitlError) as caught:
        own(tmp_path, text)
    assert BAD[text] in str(caught.value)


def test_a_device_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MinitlError, match="unknown device 'cray'; choose one of: ef-train"):
        devices.get("cray")
    with pytest.raises(MinitlError, match=r"none\.toml: cannot read: No such file"):
        devices.get(str(tmp_path / "none.toml"))


def test_noise_in_a_file_is_a_device_or_refused(tmp_path: Path) -> None:
    rng, refused = np.random.default_rng(0), 0
    for _ in range(FUZZ):
        try:
            own(tmp_path, noisy_text(GOOD, rng))
        except MinitlError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > FUZZ / 4


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for read in (devices.get, networks.get):
        with pytest.raises(MinitlError, match="not a plain file"):
            read(str(tmp_path / "pipe.toml"))
