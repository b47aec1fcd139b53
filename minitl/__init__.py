"""minitl: MobileTL in NumPy and Numba, every retained byte explicit and accounted.

net = minitl.networks.mobilenet_v3_small(num_classes=10, seed=0)
net = minitl.methods.get("mobiletl", blocks=5).apply(net)
tape = minitl.Tape()
loss = minitl.cross_entropy(tape, net(tape, images), labels)
print(minitl.accounting.ledger(tape))
gradients = tape.backward(loss)
"""

from importlib import import_module
from types import ModuleType

from minitl import accounting, methods, networks, ops
from minitl.errors import MinitlError
from minitl.layers import cross_entropy
from minitl.records import Var
from minitl.tape import Tape

__all__ = ["MinitlError", "Tape", "Var", "accounting", "cross_entropy", "methods", "networks", "ops"]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """`minitl.oracle`, `minitl.training` and `minitl.reproduce` are imported when they are first named."""
    if name in ("oracle", "reproduce", "training"):
        return import_module(f"minitl.{name}")
    raise AttributeError(f"module 'minitl' has no attribute {name!r}")
