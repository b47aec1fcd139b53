"""Usual mistakes in the exercises of tutorial 8, by a part of what `check` says to each."""

NO_DIFFERENCE = {"8c": ["elif row.bits < 8"]}  # no row has 8 bits
STEP = "parameter -= lr * gradients[name]"

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
        "in another order": [("sorted(stay)", "sorted(stay)[::-1]")],
    },
    "8c": {
        "you let everything grow": "def kept_at(rows, a, b):\n    return sum(row.bytes * b // a for row in rows)",
        "9 positions take 2 bytes per channel, not 1.125": [
            ("positions = int(np.prod(row.shape[:-1])) // old_batch * new_batch", ""),
            ("-(-positions * row.bits // 8) * row.shape[-1]", "row.bytes * new_batch / old_batch"),
        ],
        "packed bits are rounded up": [("-(-positions * row.bits // 8)", "positions * row.bits // 8")],
        "do not count it again": [
            ("row.bytes // old_batch * new_batch", "int(np.prod(row.shape)) // old_batch * new_batch * row.bits // 8")
        ],
    },
}
