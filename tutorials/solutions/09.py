"""Solutions of tutorial 9."""


def peak_of(events):
    """The highest moment stands after something was made."""
    alive, highest = {}, 0
    for kind, name, *size in events:
        if kind == "make":
            alive[name] = size[0]
        else:
            alive.pop(name)
        highest = max(highest, sum(alive.values()))
    return highest


def checkpoint(forward, backward):
    """What the block kept is thrown away, and made again when backward asks for it."""

    def run(x, p, rerun):
        return forward(x, p, rerun)[0], {"x": x}

    def run_back(kept, gy, p):
        return backward(forward(kept["x"], p, True)[1], gy, p)

    return run, run_back


def best_segments(n, x, inside):
    """All k are tried; min takes the first of several."""
    return min(range(1, n + 1), key=lambda k: k * x + -(-n // k) * inside)
