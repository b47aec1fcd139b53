"""EF-Train's FPGA: which passes its published cycle model answers, and which it does not.

Published are kernels for dense convolutions of at most 3x3 at 100 MHz (see `ef_train_cycles`); the input
gradient at stride 1. A depthwise convolution has no kernel: if groups of T channels were put on the
array's diagonal, it would do at best T multiply-adds per cycle, and this is given as a bound.
"""

from __future__ import annotations

from minitl.devices import ef_train_cycles
from minitl.devices.device import Device
from minitl.devices.ef_train_cycles import Array, Conv
from minitl.devices.work import BOUND, FORWARD, GRAD_INPUT, GRAD_WEIGHT, KNOWN, RECOMPUTE, Answer, Work, unknown_time

HERTZ = 100e6
ARRAY = Array()
MODEL = {
    FORWARD: ef_train_cycles.forward,
    RECOMPUTE: ef_train_cycles.forward,
    GRAD_INPUT: ef_train_cycles.grad_input,
    GRAD_WEIGHT: ef_train_cycles.grad_weight,
}
DENSE = ("conv", "pointwise_conv")


def answer(device: Device, work: Work) -> Answer:
    """Cycles / 100 MHz for a dense convolution, a bound for a depthwise one, else unknown."""
    if work.op == "depthwise_conv":
        channels, tile = work.y[3], ARRAY.tile
        at_best = -(-channels // tile) * (work.macs // channels)
        return Answer(BOUND, at_best / HERTZ, "at least: no published depthwise kernel; on the array's diagonal")
    if work.op not in DENSE:
        return unknown_time(f"no published cost of {work.op}")
    conv = _conv(work)
    if conv.kernel > ARRAY.kernel:
        return unknown_time(f"no published kernel above {ARRAY.kernel}x{ARRAY.kernel}")
    if work.part == GRAD_INPUT and conv.stride != 1:
        return unknown_time("no published input gradient at stride 2")
    if work.part == GRAD_WEIGHT and not work.trains_weight:
        return unknown_time("no published cost of a bias gradient alone")
    cycles = MODEL[work.part](conv, ARRAY)
    return unknown_time("one row does not fit the buffers") if cycles is None else Answer(KNOWN, cycles / HERTZ)


def _conv(work: Work) -> Conv:
    outputs, inputs, kernel, _ = work.weight
    samples, rows, columns, _ = work.y
    return Conv(outputs, inputs, rows, columns, kernel, work.stride, samples)
