"""Usual mistakes in the exercises of tutorial 4, by a part of what `check` says to each."""

GX = "(gy - gbeta / m - x_hat * ggamma / m)"
SCALE = 'p["weight"] / np.sqrt(p["running_var"] + 1e-3)'

MISTAKES = {
    "4a": {
        "you treat mean and variance as constants": [(GX, "gy")],
        "but not its part along x_hat": [(" - x_hat * ggamma / m", "")],
        "but not its mean": [(" - gbeta / m", "")],
        "the means are per channel": [(GX, "(gy - gy.mean() - x_hat * (gy * x_hat).mean())")],
        "the mean is over N, H and W": [("gy.size / gy.shape[-1]", "len(gy)")],
        "you took away the sums": [(" / m", "")],
        "gamma is missing": [("gamma * kept", "kept")],
        "inv_std is missing": [('kept["inv_std"] * ', "")],
        "gamma and beta serve all positions": [("return gx, ggamma, gbeta", "return gx, ggamma / m, gbeta / m")],
        "the results are exchanged": [("gx, ggamma, gbeta", "gx, gbeta, ggamma")],
    },
    "4b": {
        "a channel of variance 0": [(" + 1e-3", "")],
        "eps belongs under the root": [('np.sqrt(p["running_var"] + 1e-3)', '(np.sqrt(p["running_var"]) + 1e-3)')],
        "this is the batch's variance": [
            ('np.sqrt(p["running_var"] + 1e-3)\n    return (x', "np.sqrt(x.var(axis=(0, 1, 2)) + 1e-3)\n    return (x")
        ],
        "these are the batch's statistics": [
            ('np.sqrt(p["running_var"] + 1e-3)\n    return (x', "np.sqrt(x.var(axis=(0, 1, 2)) + 1e-3)\n    return (x"),
            ('p["running_mean"]', "x.mean(axis=(0, 1, 2))"),
        ],
        "beta, is missing": [(' + p["bias"]', "")],
        "gamma is missing: y is": [
            (
                'p["weight"] / np.sqrt(p["running_var"] + 1e-3)\n    return (x',
                '1 / np.sqrt(p["running_var"] + 1e-3)\n    return (x',
            )
        ],
        "gamma is missing: the scale": [
            (
                'p["weight"] / np.sqrt(p["running_var"] + 1e-3)\n    return gy',
                '1 / np.sqrt(p["running_var"] + 1e-3)\n    return gy',
            )
        ],
        "not by the variance": [("np.sqrt", "")],
        "of a norm whose statistics move": [("gy * scale", "(gy - gy.mean(axis=(0, 1, 2))) * scale")],
        "multiply gy by the scale": [("return gy * scale", "return gy.copy()")],
        "this is gamma gy": [("return gy * scale", 'return gy * p["weight"]')],
        "sum, do not average": [("gy.sum", "gy.mean")],
        "bytes that backward has no need of": [("return (x", 'kept["x"] = x\n    return (x')],
    },
    "4c": {
        "belongs to the output channels": [("scale[:, None, None, None]", "scale[:, None, None]")],
        "lines the scale up with the last axis": [("scale[:, None, None, None]", "scale")],
        "eps is missing under": [(" + 1e-3", "")],
        "this is gamma w": [("w * scale[:", 'w * p["weight"][:')],
        "the mean is scaled as well": [('p["running_mean"] * scale', 'p["running_mean"]')],
        "the sign: the mean is subtracted": [('p["bias"] - ', 'p["bias"] + ')],
        "the mean is missing": [(' - p["running_mean"] * scale', "")],
        "beta stands outside": [('p["bias"] - p["running_mean"] * scale', '(p["bias"] - p["running_mean"]) * scale')],
    },
}
