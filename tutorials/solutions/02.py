"""Solutions of tutorial 2."""


def backward_of_tape(records, loss, parameters):
    """What a value is sent adds up; what is left at the end belongs to names."""
    pending = {loss: 1.0}
    for number in range(loss, -1, -1):
        if number not in pending:
            continue
        record, gy = records[number], pending.pop(number)
        used = [parameters[source] for source in record.sources if source in parameters]
        for source, g in zip(record.sources, record.backward(record.kept, gy, *used), strict=True):
            if g is not None:
                pending[source] = pending.get(source, 0) + g
    return pending


def kept_bytes(arrays):
    """A view's owner is at the end of the chain of bases."""
    owners = {}
    for array in arrays:
        while array.base is not None:
            array = array.base
        owners[id(array)] = array.nbytes
    return sum(owners.values())


def needed(layers, trained):
    """A layer's input wants a gradient if any layer below trains."""
    return [any(below in trained for below in layers[:i]) for i in range(len(layers))]
