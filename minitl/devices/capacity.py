"""A device of which only the memory is known: whether a step fits, and nothing about its time."""

from __future__ import annotations

from minitl.devices.device import Device
from minitl.devices.work import Answer, Work, unknown_time


def answer(device: Device, work: Work) -> Answer:
    """Unknown, always."""
    return unknown_time("no training speed is published")
