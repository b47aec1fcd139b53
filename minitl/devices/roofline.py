"""The roofline: no pass is faster than its operations at peak rate, nor than its bytes at full bandwidth.

    seconds >= max(flops / flops_per_s, bytes / bytes_per_s)

(Williams, Waterman & Patterson 2009, DOI 10.1145/1498765.1498785.) A lower bound, never a
prediction: real code stays above it by a factor that nobody has published for these layers.
"""

from __future__ import annotations

from minitl.devices.device import Device
from minitl.devices.work import BOUND, Answer, Work, unknown_time


def answer(device: Device, work: Work) -> Answer:
    """The larger of the two terms whose figure is published; unknown where neither is."""
    terms = {
        name: amount / rate
        for name, amount in (("flops_per_s", work.flops), ("bytes_per_s", work.bytes))
        if (rate := device.value(name))
    }
    if not terms:
        return unknown_time("neither operations nor bytes per second are published")
    binding = max(terms, key=terms.__getitem__)
    return Answer(BOUND, terms[binding], f"at least: {'operations' if binding == 'flops_per_s' else 'bytes'} at peak")
