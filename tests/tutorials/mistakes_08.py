"""Usual mistakes in the exercises of tutorial 8, by a part of what `check` says to each."""

NO_DIFFERENCE = {"8c": ["elif row.bits < 8"]}  # no row has 8 bits
PACKED = "-(-positions * row.bits // 8)"
STEP = "parameter -= lr * gradients[name]"

ALSO = {
    "8b": [[(" and (s, c) != (size, correct)", " and _ is not name")]],  # twins beat each other
    "8c": [
        [(PACKED, "(positions * row.bits // 8)"), ('row.tensor == "inv_std"', "len(row.shape) == 1")],
        [("row.bytes // old_batch * new_batch", "row.bytes")],
        "def kept_at(rows, a, b):\n    return sum(row.bytes for row in rows)",
    ],
}

MISTAKES = {
    "8a": {
        "no parameter has changed": [(STEP, "parameter = parameter - lr * gradients[name]")],
        "you went uphill": [("-=", "+=")],
        "the learning rate is missing": [("lr * ", "")],
        "the mean over the batch already": [("lr * ", "lr / len(labels) * ")],
        "this is the loss after the step": [
            (
                "return float",
                "t = minitl.Tape()\n    loss = minitl.cross_entropy(t, net(t, images), labels)\n    return float",
            )
        ],
        "loss.value holds the number": [("float(loss.value)", "float(loss)")],
        "The loss should be a float": [("float(loss.value)", "loss")],
        "A parameter that is not trained has changed": [
            (
                "    return float",
                "    for p in net.parameters():\n"
                "        if not p.trained and not p.statistic:\n            p.value *= 1 - lr\n    return float",
            )
        ],
        "The running statistics moved other than by one batch": [
            ("    return float", "    net(minitl.Tape(), images)\n    return float")
        ],
        "this tape was already walked back": [("    return float", "    tape.backward(loss)\n    return float")],
    },
    "8b": {
        "equal in one is enough": [("s <= size and c >= correct", "s < size and c > correct")],
        "Less memory is better": [("s <= size", "s >= size")],
        "You compare memory alone": [("s <= size and c >= correct and (s, c) != (size, correct)", "s < size")],
        "You compare accuracy alone": [("s <= size and c >= correct and (s, c) != (size, correct)", "c > correct")],
        "so both stay": """
def pareto(points):
    stay, best = [], -1
    for name, size, correct in sorted(points, key=lambda point: (point[1], -point[2])):
        if correct > best:
            stay.append(name)
            best = correct
    return stay
""",
        "in another order": [("sorted(stay)", "sorted(stay)[::-1]")],
    },
    "8c": {
        "inv_std is one number per channel": (
            "def kept_at(rows, a, b):\n    return sum(row.bytes * b // a for row in rows)"
        ),
        "labels, one number per image": [('row.tensor == "inv_std"', "len(row.shape) == 1")],
        "9 positions take 2 bytes per channel, not 1.125": [
            ("positions = int(np.prod(row.shape[:-1])) // old_batch * new_batch", ""),
            ("-(-positions * row.bits // 8) * row.shape[-1]", "row.bytes * new_batch / old_batch"),
        ],
        "not 9 / 8": [(PACKED, "positions * row.bits / 8")],
        "packed bits are rounded up:": [(PACKED, "positions * row.bits // 8")],
        "which is not to add a byte": [(PACKED, "(positions * row.bits // 8 + 1)")],
        "do not count it again": [
            ("row.bytes // old_batch * new_batch", "int(np.prod(row.shape)) // old_batch * new_batch * row.bits // 8")
        ],
    },
}
