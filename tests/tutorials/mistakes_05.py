"""Usual mistakes in the exercises of tutorial 5, by a part of what `check` says to each."""

MISTAKES = {
    "5a": {
        "where y = 6 the slope is 0": [(" & (y < 6)", "")],
        "where y = 0 the slope is 0": [("(y > 0)", "(y >= 0)")],
        "both ends belong to the flat parts": [("(y > 0) & (y < 6)", "(y >= 0) & (y <= 6)")],
        "this is the slope; backward multiplies": [("gy * ((y > 0) & (y < 6))", "((y > 0) & (y < 6)).astype(y.dtype)")],
    },
    "5b": {
        "nan where 9 + 24 y": [("np.maximum(9 + 24 * y, 0)", "9 + 24 * y")],
        "has the wrong sign: h falls there": [("-root", "root")],
        "has the wrong sign, also on the flat end": [("-root", "root"), ("slope[(y == 0) & ~side] = 0", "")],
        "y = 0 with side False means x <= -3": [("slope[(y == 0) & ~side] = 0", "")],
        "at x = 0, y is 0 as well": [("(y == 0) & ~side", "y == 0")],
        "at y = 3 the slope is 1": [("y >= 3", "y > 3")],
        "where y >= 3 it is x itself": [("slope[y >= 3] = 1", "")],
        "divide by 6": [("root, -root", "6 * root, -6 * root")],
    },
    "5c": {
        "the middles between the slopes": """
def best_levels(border):
    s = (2 * border + 3) / 6
    return s / 2, (s + 1) / 2
""",
        "the upper one comes first": [
            (
                "return h / (border + 10), (10 - h) / (10 - border)",
                "return (10 - h) / (10 - border), h / (border + 10)",
            )
        ],
        "these are the rises": [("h / (border + 10)", "h"), ("(10 - h) / (10 - border)", "10 - h")],
        "h is the parabola only": [("min(max(border + 3, 0), 6)", "(border + 3)")],
        "from -3 and up to 3 only": [
            ("border + 10", "border + 3"),
            ("(10 - h) / (10 - border)", "(3 - h) / (3 - border)"),
        ],
    },
    "5d": {
        "the sign rule is not exact": [("0.5 + 10", "10")],
        "the intervals are 10 wide": [("10 *", "3 *")],
        "this is the mean square": [
            ("0.5 + 10 * a**2 + 10 * (c - 1) ** 2", "(0.5 + 10 * a**2 + 10 * (c - 1) ** 2) / 20")
        ],
        "the distance of c is counted from there": [("(c - 1)", "c")],
    },
}
