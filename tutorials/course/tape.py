"""The walk back along tutorial 2's tape, lent until exercise 2a is done."""

from collections.abc import Callable
from typing import Any, NamedTuple


class Record(NamedTuple):
    """What ran: its name, its backward, what it kept, and where its inputs came from.

    A source is the number of the record that made the input, or the name of an input or parameter of the whole.
    `backward(kept, gy, *parameters)` gives a tuple of gradients, one per source, None where nobody wants one.
    """

    name: str
    backward: Callable[..., tuple[Any, ...]]
    kept: dict[str, Any]
    sources: tuple[Any, ...]


def backward(records, loss, parameters, gy=1.0, after_each=lambda: None):
    """Gradients by name. Empties each record as it passes, and then calls `after_each`."""
    pending = {loss: gy}
    for number in reversed(range(loss + 1)):
        if number not in pending:
            continue
        record, gy = records[number], pending.pop(number)
        used = [parameters[source] for source in record.sources if source in parameters]
        for source, gradient in zip(
            record.sources, record.backward(record.kept, gy, *used), strict=True
        ):
            if gradient is not None:
                pending[source] = pending[source] + gradient if source in pending else gradient
        record.kept.clear()
        after_each()
    return pending
