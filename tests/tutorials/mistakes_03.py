"""Usual mistakes in the exercises of tutorial 3, by a part of what `check` says to each."""

GW = "(padded[:, u : u + height, v : v + width] * gy).sum(axis=(0, 1, 2))"
GW_2 = "(padded[tap] * gy).sum(axis=(0, 1, 2))"

MISTAKES = {
    "3a": {
        "W is used transposed": [("gy @ w[:, :, 0, 0]", "gy @ w[:, :, 0, 0].T")],
        "gw has shape (I, O)": [
            (
                "gy.reshape(-1, gy.shape[-1]).T @ x.reshape(-1, x.shape[-1])",
                "x.reshape(-1, x.shape[-1]).T @ gy.reshape(-1, gy.shape[-1])",
            ),
        ],
        "(O, I, 1, 1)": [("gw.reshape(w.shape)", "gw")],
        "a weight serves all M positions": [("gw.reshape(w.shape)", "gw.reshape(w.shape) / gy[..., 0].size")],
        "a weight serves all images": [("gw.reshape(w.shape)", "gw.reshape(w.shape) / len(gy)")],
        "the first image's positions": [("gw = gy.", "gw = gy[0]."), ("@ x.", "@ x[0].")],
        "of no use afterwards": [('x = kept["x"]', 'x = kept["x"]\n    kept["rows"] = x.reshape(-1, x.shape[-1])')],
    },
    "3b": {
        "The pixel that forward read": [("* gy\n", "* gy\n"), ("w[:, 0, u, v]", "w[:, 0, k - 1 - u, k - 1 - v]")],
        "it still has the frame": [("gx[:, p : p + height, p : p + width]", "gx")],
        "the frame is k // 2 wide, not 1: cut": [("gx[:, p : p + height, p : p + width]", "gx[:, 1:-1, 1:-1]")],
        "the frame is k // 2 wide, not 1: for": [
            ("gx[:, p : p + height, p : p + width]", "gx[:, 1 : 1 + height, 1 : 1 + width]")
        ],
        "rows and columns of the filter": [("w[:, 0, u, v] * gy", "w[:, 0, v, u] * gy")],
        "u and v are exchanged": [("gw[:, 0, u, v] =", "gw[:, 0, v, u] =")],
        "this is the first image's": [(GW, "(padded[0, u : u + height, v : v + width] * gy[0]).sum(axis=(0, 1))")],
        "the sum over images": [(GW, GW + " / len(x)")],
        "the sum over positions": [(GW, GW.replace("sum", "mean"))],
        "(C, 1, k, k)": [("p : p + width], gw", "p : p + width], gw[:, 0]")],
        "the filter turned round, or x and gy exchanged": [("gw[:, 0, u, v] =", "gw[:, 0, k - 1 - u, k - 1 - v] =")],
        "was changed: its owner": [("p = k // 2", "p = k // 2\n    x *= 2\n    x = x / 2")],
    },
    "3c": {
        "an odd last row has one as well": [("(height + 1) // 2, (width + 1) // 2", "height // 2, width // 2")],
        "= 2, not 1": [
            ("p = k // 2\n    high, wide =", "p = 1\n    high, wide ="),
            ("(0, 0)))\n    y =", "(0, 0)))\n    padded = np.pad(padded, ((0, 0), (0, k), (0, k), (0, 0)))\n    y ="),
        ],
        "outputs are two positions apart": [
            ("high, wide = (height + 1) // 2, (width + 1) // 2", "high, wide = height, width"),
            ("u + 2 * high - 1 : 2, v : v + 2 * wide - 1 : 2", "u + high, v : v + wide"),
        ],
        "begins one row and column later": [
            ("(height + 1) // 2, (width + 1) // 2", "height // 2, width // 2"),
            (
                "u : u + 2 * high - 1 : 2, v : v + 2 * wide - 1 : 2",
                "u + 1 : u + 2 * high : 2, v + 1 : v + 2 * wide : 2",
            ),
        ],
        "between two outputs of a stride-2": [
            (
                "gx[tap] += w[:, 0, u, v] * gy",
                "spread = gy.repeat(2, 1).repeat(2, 2)[:, :height, :width]\n"
                "            gx[:, u : u + height, v : v + width] += w[:, 0, u, v] * spread",
            ),
        ],
        "gx goes where forward read": [
            ("gx[tap] += w[:, 0, u, v] * gy", "gx[tap] += w[:, 0, k - 1 - u, k - 1 - v] * gy"),
        ],
        "this is the first image's": [(GW_2, "(padded[tap] * gy)[0].sum(axis=(0, 1))")],
        "the sum over images": [(GW_2, GW_2 + " / len(x)")],
        "the sum over positions": [(GW_2, GW_2.replace("sum", "mean"))],
    },
    "3d": {
        "a frozen convolution through which a gradient passes": """
def kept_by(layers, trained):
    kept, below = {}, False
    for name, shape in layers.items():
        below = below or name in trained
        kept[name] = 4 * int(np.prod(shape)) * below
    return kept
""",
        "numbers of elements": [("4 * ", "")],
        "this is the next one's": """
def kept_by(layers, trained):
    following = [*list(layers.values())[1:], list(layers.values())[-1]]
    return {n: 4 * int(np.prod(s)) * (n in trained) for n, s in zip(layers, following)}
""",
        "this is one image's": [("np.prod(shape)", "np.prod(shape[1:])")],
        "ask whether the name is in": [(" * (name in trained)", "")],
    },
}
