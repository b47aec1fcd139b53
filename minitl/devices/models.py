"""The ways a device's figures turn into time, by the name its TOML gives."""

from __future__ import annotations

from collections.abc import Callable

from minitl.devices import arrays, capacity, ef_train, roofline
from minitl.devices.device import MODELS, Device
from minitl.devices.work import Answer, Work

ANSWERS: dict[str, Callable[[Device, Work], Answer]] = dict(
    zip(
        MODELS,
        (roofline.answer, ef_train.answer, arrays.bit_serial, arrays.weight_stationary, capacity.answer),
        strict=True,
    )
)


def answer(device: Device, work: Work) -> Answer:
    """What `device` says about one pass."""
    return ANSWERS[device.model](device, work)
