"""Training that is refused half-way leaves no trace: network and optimizer are put back, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from minitl.arrays import Array
from minitl.layers import Norm
from minitl.networks.model import Model
from minitl.training.optimizers import Optimizer


@contextmanager
def all_or_nothing(network: Model, optimizer: Optimizer) -> Iterator[None]:
    """Undo all that was trained within, should an error be raised there (an interruption is none).

    Meanwhile it holds a copy of what training changes: trained parameters, running statistics, what
    rules carry from step to step, and the optimizer's state.
    """
    arrays = [p.value for p in network.parameters() if p.trained or p.statistic or network.late]
    arrays += [array for state in optimizer.state.values() for array in state.arrays]
    copies = [array.copy() for array in arrays]
    batches = {layer: layer.batches for layer in network.layers() if isinstance(layer, Norm)}
    states, late = dict(optimizer.state), network.late
    plans = [(layer, layer.plan, _copied(layer.carried())) for layer in network.layers()]
    try:
        yield
    except Exception:
        for array, copy in zip(arrays, copies, strict=True):
            array[...] = copy
        for norm, count in batches.items():
            norm.batches = count
        optimizer.state, network.late = states, late
        for layer, plan, carried in plans:
            if layer.plan is not plan or layer.carried():
                layer.apply(plan)  # and carry nothing
                layer.carry(carried)
        raise


def _copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {name: array.copy() for name, array in arrays.items()}
