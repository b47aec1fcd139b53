"""Devices: published figures in TOML files, and how they turn into time, a bound, or an honest unknown."""

from minitl.devices.device import Device, Figure, get, names
from minitl.devices.models import answer
from minitl.devices.work import Answer, Work

__all__ = ["Answer", "Device", "Figure", "Work", "answer", "get", "names"]
