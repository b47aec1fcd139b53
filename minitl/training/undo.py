"""Training that is refused half-way leaves no trace: network and optimizer are put back, to the bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from minitl.layers import Norm
from minitl.networks.model import Model
from minitl.training.optimizers import Optimizer


@contextmanager
def all_or_nothing(network: Model, optimizer: Optimizer) -> Iterator[None]:
    """Undo all that was trained within, should an error be raised there (an interruption is none).

    Meanwhile it holds a copy of what training changes: trained parameters, running statistics and
    the optimizer's state.
    """
    arrays = [p.value for p in network.parameters() if p.trained or p.statistic or network.late]
    arrays += [array for state in optimizer.state.values() for array in state.arrays]
    copies = [array.copy() for array in arrays]
    batches = {layer: layer.batches for layer in network.layers() if isinstance(layer, Norm)}
    states, plans, late = dict(optimizer.state), [(layer, layer.plan) for layer in network.layers()], network.late
    try:
        yield
    except Exception:
        for array, copy in zip(arrays, copies, strict=True):
            array[...] = copy
        for layer, count in batches.items():
            layer.batches = count
        optimizer.state, network.late = states, late
        for changed, plan in plans:
            if changed.plan is not plan:
                changed.apply(plan)
        raise
