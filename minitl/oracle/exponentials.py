"""Softmax cross-entropy whose exponentials and logarithm are correctly rounded: the same bytes on any machine.

NumPy's and the C library's `exp` and `log` may differ in the last bit from one machine to another. These come
from `decimal` with 40 digits.
"""

from __future__ import annotations

from decimal import Context, Decimal

import numpy as np

from minitl.arrays import Array
from minitl.saved import Saved

DIGITS = Context(prec=40)


def cross_entropy(z: Array, labels: Array, saved: Saved) -> Array:
    """The loss of float64 logits (N, K); overwrites the kept probabilities, where there are any."""
    losses = []
    for n, (row, label) in enumerate(zip(z.tolist(), labels.tolist(), strict=True)):
        powers = [DIGITS.exp(DIGITS.subtract(Decimal(v), Decimal(max(row)))) for v in row]
        total = Decimal(0)
        for power in powers:
            total = DIGITS.add(total, power)
        losses.append(DIGITS.subtract(DIGITS.ln(total), DIGITS.subtract(Decimal(row[label]), Decimal(max(row)))))
        if "probabilities" in saved:
            saved["probabilities"][n] = [float(DIGITS.divide(power, total)) for power in powers]
    loss = Decimal(0)
    for one in losses:
        loss = DIGITS.add(loss, one)
    return np.array(float(DIGITS.divide(loss, Decimal(len(losses)))))
