"""minitl: MobileTL in NumPy and Numba, every retained byte explicit and accounted.

    net = minitl.networks.mobilenet_v3_small(num_classes=10, seed=0)
    net = minitl.methods.get("mobiletl", blocks=5).apply(net)
    tape = minitl.Tape()
    loss = minitl.cross_entropy(tape, net(tape, images), labels)
    print(minitl.accounting.ledger(tape))
    gradients = tape.backward(loss)

Besides what is listed here: `minitl.training`, `minitl.data`, `minitl.export`, `minitl.devices`, `minitl.oracle`,
`minitl.layers`, `minitl.errors`.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from minitl import methods, networks, ops
from minitl.errors import MinitlError
from minitl.layers import cross_entropy
from minitl.records import Var
from minitl.tape import Tape
from minitl.version import VERSION

if TYPE_CHECKING:
    from minitl import accounting

__all__ = ["MinitlError", "Tape", "Var", "accounting", "cross_entropy", "methods", "networks", "ops"]
__version__ = VERSION


LATER = ("accounting", "data", "devices", "export", "oracle", "reproduce", "training")


def __dir__() -> list[str]:
    return sorted({*globals(), *LATER})


def __getattr__(name: str) -> ModuleType:
    """What a training step does without is imported when it is first named."""
    if name in LATER:
        return import_module(f"minitl.{name}")
    raise AttributeError(f"module 'minitl' has no attribute {name!r}")
