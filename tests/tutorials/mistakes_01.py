"""Usual mistakes in the exercises of tutorial 1, by a part of what `check` says to each."""

ALLOWED = "1e-6 * np.linalg.norm(gx) * np.linalg.norm(t)"

MISTAKES = {
    "1a": {
        "mind the sign of x": [("np.exp(-x)", "np.exp(x)")],
        "this is the slope of the sigmoid": [
            ("1 / (1 + np.exp(-x))", "np.exp(-x) / (1 + np.exp(-x)) ** 2"),
        ],
        "this is the slope of the operation": [("gy * y", "y")],
        "the factor 1 - y is missing": [(" * (1 - y)", "")],
        "yours has 1 + y": [("1 - y", "1 + y")],
        "the sign is the other way round": [("1 - y", "y - 1")],
        "you keep x and make the exponential again": [
            ('kept["y"] = 1 / (1 + np.exp(-x))', 'kept["x"] = x'),
            ('return kept["y"]', "return 1 / (1 + np.exp(-x))"),
            ('y = kept["y"]', 'y = 1 / (1 + np.exp(-kept["x"]))'),
        ],
        "you keep 2 arrays": [('kept["y"] =', 'kept["x"] = x\n    kept["y"] =')],
        "but you keep an extra array": [
            ('return kept["y"]', 'y = kept.pop("y")\n    kept["slope"] = y * (1 - y)\n    return y'),
            ('y = kept["y"]\n    return gy * y * (1 - y)', 'return gy * kept["slope"]'),
        ],
        "with nothing in `kept`": [
            ('kept["y"] = 1 / (1 + np.exp(-x))', "global aside\n    aside = 1 / (1 + np.exp(-x))"),
            ('return kept["y"]', "return aside"),
            ('y = kept["y"]', "y = aside"),
        ],
    },
    "1b": {
        "is your difference one-sided": [("forward(x - d * t, {})", "y"), ("/ (2 * d)", "/ d")],
        "Compare with |gx| |t|": [(ALLOWED, "1e-6 * abs(by_differences)")],
        "right gradient of y = 3 x": [("/ (2 * d)", "/ d")],
        "without the 2 of the square": [("1e-6 *", "10 *")],
        "where gradients are tiny": [
            ("abs((gx * t).sum() - by_differences) < allowed", "np.isclose((gx * t).sum(), by_differences)"),
        ],
        "The fault at element 17 went by": [
            ("rng.standard_normal(x.shape)", "np.eye(1, x.size).reshape(x.shape)"),
        ],
        "right only where x > 0": [
            ("kept, d = {}, 1e-5", "x, kept, d = abs(x), {}, 1e-5"),
        ],
    },
    "1c": {
        "the first position is the lowest bit": [("padded[bit::8] << bit", "padded[bit::8] << (7 - bit)")],
        "neighbouring positions of the same channel": """
def pack(bits):
    m, c = bits.shape
    packed = np.zeros((m, -(-c // 8)), np.uint8)
    for i in range(c):
        packed[:, i // 8] |= bits[:, i].astype(np.uint8) << i % 8
    return packed

unpack = packed_bytes = print
""",
        "is filled with zeros, not dropped": [
            ("m, c = bits.shape", "m, c = bits.shape\n    m = m // 8 * 8\n    bits = bits[:m]"),
        ],
        "as one row": [("return packed\n", "return np.packbits(bits, bitorder='little')\n")],
        "return the first `count` only": [("bits[:count]", "bits")],
        "the lowest bit is the first": [("packed >> bit", "packed >> 7 - bit")],
        "round up before you multiply": [("(positions + 7) // 8 * channels", "(positions * channels + 7) // 8")],
        "the last byte counts too": [
            ("packed_bytes(m, 1)", "(-(-m // 8))"),
            ("(positions + 7) // 8", "positions // 8"),
        ],
        "rounded up, not down": [
            ("packed_bytes(m, 1)", "(-(-m // 8))"),
            ("(positions + 7) // 8 * channels", "positions * channels // 8"),
        ],
        "no last byte to fill up": [
            ("packed_bytes(m, 1)", "(-(-m // 8))"),
            ("(positions + 7) // 8", "(positions // 8 + 1)"),
        ],
        "that is one channel's": [("packed_bytes(m, 1)", "(-(-m // 8))"), (" * channels", "")],
        "divide by 8": [("packed_bytes(m, 1)", "(-(-m // 8))"), ("(positions + 7) // 8", "8 * positions")],
        "a byte has 8 bits.": [("packed_bytes(m, 1)", "(-(-m // 8))"), ("(positions + 7) // 8", "positions")],
        "a whole number": [
            ("packed_bytes(m, 1)", "(-(-m // 8))"),
            ("(positions + 7) // 8", "positions / 8"),
        ],
    },
}

ALSO = {
    "1b": [
        [(ALLOWED, "1e-6")],
        [(ALLOWED, "1e-6 * np.linalg.norm(x)")],
        [(ALLOWED, "1e-4")],
    ]
}

NO_DIFFERENCE = {  # d, and what is allowed: anything near them does
    "1b": ("1.01e-05", "1.0100000000000002e-05", "1.0099999999999999e-06", "/ np.linalg.norm(t)", "<= allowed"),
}
