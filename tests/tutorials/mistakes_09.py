"""Usual mistakes in the exercises of tutorial 9, by a part of what `check` says to each."""

NO_DIFFERENCE = {"9c": ["range(1, n + 1.01)"]}
MISTAKES = {
    "9a": {
        "These are all bytes ever made": [
            ("alive.pop(name)", "pass"),
            ("alive[name] = size[0]", "alive[len(alive)] = size[0]"),
        ],
        "alive at the end": [("max(highest, sum(alive.values()))", "sum(alive.values())")],
        "the largest single array": [("sum(alive.values())", "max(alive.values(), default=0)")],
        "the output exists while the input still does": [
            ("            alive.pop(name)\n        highest", "            alive.pop(name)\n            highest")
        ],
        "Where nothing is ever made": "def peak_of(events):\n"
        "    alive, seen = {}, []\n"
        "    for kind, name, *size in events:\n"
        "        if kind == 'make':\n"
        "            alive[name] = size[0]\n"
        "        else:\n"
        "            alive.pop(name)\n"
        "        seen.append(sum(alive.values()))\n"
        "    return max(seen, default=-1)",
    },
    "9b": {
        "then nothing is saved": [('forward(x, p, rerun)[0], {"x": x}', "forward(x, p, rerun)")],
        "no copy": [('{"x": x}', '{"x": x.copy()}')],
        "The running statistics moved twice": [('forward(kept["x"], p, True)', 'forward(kept["x"], p, False)')],
        "and hand `rerun` on to it": [("forward(x, p, rerun)", "forward(x, p, False)")],
        "yours runs the block with rerun=True": [("forward(x, p, rerun)", "forward(x, p, True)")],
        "something stored outside `kept`": [
            ("    def run(", "    stored = {}\n\n    def run("),
            (
                'return forward(x, p, rerun)[0], {"x": x}',
                'y, stored["inner"] = forward(x, p, rerun)\n        return y, {"x": x}',
            ),
            ('forward(kept["x"], p, True)[1]', 'stored["inner"]'),
        ],
        "forward once and backward once is enough": [
            ("return backward(", 'forward(kept["x"], p, True)\n        return backward(')
        ],
    },
    "9c": {
        "The segment that is run again is forgotten": [(" + -(-n // k) * inside", "")],
        "The inputs are forgotten": [("k * x + ", "")],
        "the largest has 5, not 4. Round up": [("-(-n // k)", "n // k")],
        "the largest has 5, not 4.25": [("-(-n // k)", "n / k")],
        "take the smallest": [("range(1, n + 1)", "range(n, 0, -1)")],
        "The square root of n": "def best_segments(n, x, inside):\n    return max(1, round(n**0.5))",
    },
}
