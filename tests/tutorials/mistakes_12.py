"""Usual mistakes in the exercises of tutorial 12, by a part of what `check` says to each."""

FITTING = "max(1, min(batch, (cache - weights) // (2 * inner)))"
ALSO = {"12a": [[('op["weights"] + ', '2 * op["weights"] + ')]]}
MISTAKES = {
    "12a": {
        "The weights are missing": [('op["weights"] + ', "")],
        "but not what is read": [("x + op", "op")],
        "but not what is written.": [('sum(x + op["out"] for', "sum(x for")],
        "A mask of 8 bits takes 1 byte": [('op["mask"] // 8', 'op["mask"]')],
        "The masks are missing": [(' + op["mask"] // 8', "")],
        "must still be written, once": [(' + sum(x for x, op in pairs if op["keeps_input"])', "")],
        "nobody reads it in the forward pass": [("sum(x for x, op in pairs", "sum(2 * x for x, op in pairs")],
        "do not write it again": [("[1:]", "")],
        "the chain's input still has to be read": [("total + first + ops", "total + ops")],
        "the last output still has to be written": [(' + ops[-1]["out"]', "")],
        "these are the bytes of the other way": [("if not fused", "if fused")],
    },
    "12b": {
        "The weights take room": [("(cache - weights)", "cache")],
        "2 maps per image": [("(2 * inner)", "inner")],
        "not once per image": [("(cache - weights) // (2 * inner)", "cache // (2 * inner + weights)")],
        "a part of an image does not fit": [
            ("(cache - weights) // (2 * inner)", "-(-(cache - weights) // (2 * inner))")
        ],
        "whether it fits or not": [("max(1, min(", "max(0, min(")],
        "less than none": [(FITTING, "min(batch, (cache - weights) // (2 * inner))")],
        "There are only `batch` images": [(FITTING, "max(1, (cache - weights) // (2 * inner))")],
    },
    "12c": {
        "The last tile is smaller, and is lost": [("range(0, len(x), tile)", "range(0, len(x) - tile + 1, tile)")],
        "images at once": [("np.concatenate([f(x[a : a + tile]) for a in range(0, len(x), tile)])", "f(x)")],
        "tiles overlap": [
            (
                "np.concatenate([f(x[a : a + tile]) for a in range(0, len(x), tile)])",
                "np.concatenate([f(x[a : a + tile])[:1] for a in range(len(x))])",
            )
        ],
        "put them together": [("np.concatenate(", "("), (")])", ")])")],
        "f is never called": [("f(x[a", "(x[a")],
    },
}
