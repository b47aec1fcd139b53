"""Solutions of tutorial 7."""

import numpy as np

from course.pieces import rows, unpack


def position_gate(x, gate, kept):
    """Both factors, and nothing else."""
    kept["x"], kept["gate"] = x, gate
    return gate * x


def position_gate_backward(kept, gy):
    """A position's number serves all channels there."""
    return kept["gate"] * gy, (gy * kept["x"]).sum(axis=3, keepdims=True)


def squeeze_excite_backward(kept, gy, p):
    """From the end; the two paths into x meet in the last line."""
    grads = {}
    x, gate = kept["se.scale.x"], kept["se.scale.gate"]
    _, height, width, _ = x.shape
    g = (gy * x).sum(axis=(1, 2), keepdims=True)
    g = g * unpack(kept["se.gate.mask"], g.shape) / 6
    for name in ("se.fc2", "se.fc1"):
        w = p[f"{name}.weight"]
        grads[f"{name}.weight"] = (rows(g).T @ rows(kept[f"{name}.x"])).reshape(w.shape)
        grads[f"{name}.bias"] = g.sum(axis=(0, 1, 2))
        g = g @ w[:, :, 0, 0]
        if name == "se.fc2":
            g = g * unpack(kept["se.act.mask"], g.shape)
    return gate * gy + g / (height * width), grads


def gated_conv_backward_at_once(kept, gy, w):
    """G once, an (O, C) per sample; all else from it and from gy."""
    x, gate, matrix = kept["x"], kept["gate"][:, 0, 0], w[:, :, 0, 0]
    g = np.einsum("nhwo,nhwc->noc", gy, x)
    gx = np.einsum("nhwo,oc,nc->nhwc", gy, matrix, gate)
    ggate = np.einsum("noc,oc->nc", g, matrix)
    gw = np.einsum("noc,nc->oc", g, gate)
    return gx, ggate.reshape(kept["gate"].shape), gw.reshape(w.shape)
