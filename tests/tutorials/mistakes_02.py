"""Usual mistakes in the exercises of tutorial 2, by a part of what `check` says to each."""

MISTAKES = {
    "2a": {
        "you kept the last": [("pending.get(source, 0) + g", "g")],
        "you kept the first": [("pending[source] = pending.get(source, 0) + g", "pending.setdefault(source, g)")],
        "`+=` wrote into an array": [
            (
                "pending[source] = pending.get(source, 0) + g",
                "if source in pending:\n                    pending[source] += g\n"
                "                else:\n                    pending[source] = g",
            )
        ],
        "Record 3 was never sent a gradient": [("if number not in pending:\n            continue", "pass")],
        "'labels' is the name of an input": [("if source in parameters", "if isinstance(source, str)")],
        "with respect to itself is 1": [("{loss: 1.0}", "{loss: 0.0}")],
        "The result holds gradients of records": [("range(loss, -1, -1)", "range(loss + 1)")],
        "was asked for its gradients before": [
            ("range(loss, -1, -1)", "range(loss + 1)"),
            ("if number not in pending:\n            continue", "pass"),
            ("pending.pop(number)", "pending.pop(number, 0.0)"),
        ],
        "Record 3 was asked": [
            ("if number not in pending:\n            continue", "pass"),
            ("pending.pop(number)", "pending.pop(number, 0.0)"),
        ],
        "Expected gradients of x and w": [
            ("range(loss, -1, -1)", "range(loss, 0, -1)"),
            ("return pending", "pending.pop(0)\n    return pending"),
        ],
    },
    "2b": {
        "The same array twice is one block": [
            ("owners = {}", "owners = []"),
            ("owners[id(array)] = array.nbytes", "owners.append(array.nbytes)"),
            ("owners.values()", "owners"),
        ],
        "A slice of": [("while array.base is not None:\n            array = array.base", "pass")],
        "follow .base to its end": [("while array.base", "if array.base")],
        "their bytes add": [("sum(owners.values())", "max([0, *owners.values()])")],
    },
    "2c": {
        "the lowest trained layer needs no gradient": [("layers[:i]", "layers[:i + 1]")],
        "the layers above the last trained one pass it on": [
            (
                "for i in range(len(layers))]",
                "and any(above in trained for above in layers[i:]) for i in range(len(layers))]",
            )
        ],
        "turned round": [("layers[:i]", "layers[i + 1:]")],
        "these are the trained layers": [("any(below in trained for below in layers[:i])", "layers[i] in trained")],
        "below the lowest trained layer nobody": [("any(below in trained for below in layers[:i])", "True")],
    },
}
