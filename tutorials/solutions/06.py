"""Solutions of tutorial 6."""

import numpy as np

from course.pieces import (
    activation,
    activation_backward,
    batch_norm,
    batch_norm_backward,
    depthwise,
    depthwise_backward,
    frozen_norm,
    frozen_norm_backward,
    pointwise,
    pointwise_backward,
)


def predict_rows(sizes, method):
    """Three sizes of map; packed bits rounded up to bytes."""
    n, high, e = sizes["batch"], sizes["resolution"], sizes["expanded"]
    low = (high + sizes["stride"] - 1) // sizes["stride"]
    before, after = n * high**2, n * low**2
    rows = {"expand.x": 4 * before * sizes["inputs"], "depthwise.x": 4 * before * e}
    for name, positions in (("expand", before), ("depthwise", after)):
        if method == "mobiletl":
            rows[f"{name}_act.mask"] = -(-positions // 8) * e
            continue
        rows[f"{name}_norm.x_hat"], rows[f"{name}_norm.inv_std"] = 4 * positions * e, 4 * e
        if sizes["kind"] == "relu6":
            rows[f"{name}_act.codes"] = -(-2 * positions // 8) * e
        else:
            rows[f"{name}_act.x"] = 4 * positions * e
    rows["project.x"] = 4 * after * e
    rows["project_norm.x_hat"] = 4 * after * sizes["outputs"]
    rows["project_norm.inv_std"] = 4 * sizes["outputs"]
    return rows


def strided_block(x, p, gy, kind, stride):
    """The stride at both depthwise calls; the residual asks for the stride and for the shapes."""
    kept, grads = {}, {}
    h = pointwise(x, p, "expand", kept)
    h = frozen_norm(h, p, "expand_norm", kept)
    h = activation(h, "expand_act", kept, kind, True)
    h = depthwise(h, p, "depthwise", kept, stride)
    h = frozen_norm(h, p, "depthwise_norm", kept)
    h = activation(h, "depthwise_act", kept, kind, True)
    h = pointwise(h, p, "project", kept)
    h = batch_norm(h, p, "project_norm", kept)
    residual = stride == 1 and h.shape == x.shape

    g = batch_norm_backward(kept, gy, p, "project_norm", grads)
    g = pointwise_backward(kept, g, p, "project", grads)
    g = activation_backward(kept, g, "depthwise_act")
    g = frozen_norm_backward(kept, g, p, "depthwise_norm", grads)
    g = depthwise_backward(kept, g, p, "depthwise", grads, stride)
    g = activation_backward(kept, g, "expand_act")
    g = frozen_norm_backward(kept, g, p, "expand_norm", grads)
    g = pointwise_backward(kept, g, p, "expand", grads)
    grads["x"] = g + gy if residual else g
    return (h + x if residual else h), grads


def cosines(x, p, gy, forward, backward):
    """The lower in the block, the more activations the gradient has passed, the further it is turned."""
    exact, signed = (
        backward(forward(x, p, kind="hard_swish", shift_only=True, signs=signs)[1], gy, p)
        for signs in (False, True)
    )
    found = {}
    for name in ("expand.weight", "depthwise.weight", "project.weight"):
        a, b = exact[name].ravel(), signed[name].ravel()
        found[name] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    return found


def rows_that_go(method):
    """x_hat stays for the scale, the activation's codes for the norm's shift."""
    return {"expand.x", "expand_norm.inv_std"} if method == "vanilla" else {"expand.x"}
