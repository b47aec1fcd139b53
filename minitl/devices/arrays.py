"""Arrays that compute where the weights are stored: what can be counted without knowing how fast they are.

Two ideas, both published with relative figures only, so seconds and joules are unknown:

`bit-serial-array`: weights stay in memory cells, one bit each, and a product of 8-bit integers is
64 ANDs of bit planes and population counts (Zhang et al., IEEE TCAD 2024, DOI
10.1109/TCAD.2024.3371268). A sum of K products takes 64 ceil(K / row_width) row activations; the
row width is not published, so that count needs a TOML that states one.

`weight-stationary-array`: weights are written into an array that multiplies whole vectors, inputs
in the forward pass and gradients in the backward pass (Li, Louri & Karanth, IEEE T-SUSC, DOI
10.1109/TSUSC.2024.3521847). One vector per position and pass, `wavelengths` of them at once.
"""

from __future__ import annotations

from minitl.arrays import positions, size
from minitl.devices.device import Device
from minitl.devices.work import FORWARD, GRAD_WEIGHT, RECOMPUTE, Answer, Work, unknown_time

BITS = 8  # of a stored weight and of an operand
NOT_PUBLISHED = "cycle time and energy are not published"
NO_PRODUCT = "not a product with stored weights; its cost is not published"


def bit_serial(device: Device, work: Work) -> Answer:
    """Plane operations, row activations where the row width is given, and cell writes, of one pass."""
    if work.macs == 0:
        return unknown_time(NO_PRODUCT)
    counts = {"plane_operations": work.macs * BITS * BITS}
    if width := device.value("row_width"):
        sums = work.macs // _terms(work)
        counts["row_activations"] = sums * BITS * BITS * -(-_terms(work) // int(width))
    if work.part == GRAD_WEIGHT and work.trains_weight:
        counts["cell_writes"] = size(work.weight) * BITS
    return unknown_time(NOT_PUBLISHED, counts)


def weight_stationary(device: Device, work: Work) -> Answer:
    """Vectors through the array, and cells written when trained weights change, of one pass."""
    if work.macs == 0:
        return unknown_time(NO_PRODUCT)
    if work.part == GRAD_WEIGHT:
        return unknown_time(NOT_PUBLISHED, {"cell_writes": size(work.weight)} if work.trains_weight else {})
    vectors = positions(work.y if work.part in (FORWARD, RECOMPUTE) else work.x)
    return unknown_time(NOT_PUBLISHED, {"vectors": -(-vectors // int(device.value("wavelengths") or 1))})


def _terms(work: Work) -> int:
    """How many products one sum of this pass has."""
    weight = work.weight
    if work.part in (FORWARD, RECOMPUTE):
        return size(weight[1:])
    if work.part == GRAD_WEIGHT:
        return positions(work.y)
    return size(weight) // work.x[-1]
