"""Checks of tutorial 7, squeeze-and-excite."""

from __future__ import annotations

import numpy as np

from course.attempt import Attempt
from course.case import Array, Case
from course.exercise import exercise
from course.pieces import pack, pointwise, relu6, rows, unpack


@exercise(
    "7a",
    hints=(
        "gx needs the gate and ggate the map, as before. Which numbers of y use gate[n, h, w, 0]? Sum over those.",
        "kept has x and gate, nothing else; ggate = (gy * x).sum(axis=3, keepdims=True).",
    ),
)
def gate_of_positions(case: Case, position_gate: Attempt, position_gate_backward: Attempt) -> None:
    """Values, both gradients, and the bytes kept."""
    shape = case.map_shape()
    x, gate, gy = case.normal(*shape), case.uniform(0.1, 0.9, *shape[:3], 1), case.normal(*shape)
    kept: dict[str, Array] = {}
    case.same("y", position_gate(x, gate, kept), gate * x)
    held = sum({id(array): array.nbytes for array in kept.values()}.values())
    case.need(
        held <= x.nbytes + gate.nbytes,
        f"Right, but `kept` holds {held:,} bytes where x and the gate, {x.nbytes + gate.nbytes:,}, are enough: "
        "neither gradient needs y.",
    )
    gx, ggate = case.results(("gx", "ggate"), position_gate_backward(kept, gy))
    case.same(
        "gx",
        gx,
        gate * gy,
        {
            "this is gy alone: y = gate x, so gx = gate gy.": lambda: gy,
            "this is x gy; gx needs the other factor, the gate.": lambda: x * gy,
        },
    )
    product = gy * x
    case.same(
        "ggate",
        ggate,
        product.sum(axis=3, keepdims=True),
        {
            "sum over the channels: all of them use the same number.": lambda: product,
            "a gradient is a sum over all that use the number, not a mean.": lambda: product.mean(
                axis=3, keepdims=True
            ),
            "that is for one number per channel; here each position has its own.": (
                lambda: product.sum(axis=(1, 2), keepdims=True)
            ),
            "keep the axis of the channels, of length 1: keepdims=True.": lambda: product.sum(
                axis=3
            ),
            "this sums gy alone: the gate multiplied x.": lambda: gy.sum(axis=3, keepdims=True),
        },
    )


def draw(case: Case) -> tuple[dict[str, Array], Array, Array]:
    """Parameters of a gate, a map, and the gradient of the gated map."""
    shape = case.map_shape()
    channels, squeezed = shape[3], 4
    p = {
        "se.fc1.weight": case.normal(squeezed, channels, 1, 1),
        "se.fc1.bias": case.normal(squeezed),
        "se.fc2.weight": case.normal(channels, squeezed, 1, 1),
        "se.fc2.bias": 3 * case.normal(channels),
    }
    return p, case.normal(*shape), case.normal(*shape)


def forward(x: Array, p: dict[str, Array]) -> dict[str, Array]:
    """What tutorial 7's gate_of and scale leave in `kept`."""
    kept: dict[str, Array] = {}
    h = pointwise(x.mean(axis=(1, 2), keepdims=True), p, "se.fc1", kept) + p["se.fc1.bias"]
    kept["se.act.mask"] = pack(h > 0)
    h = pointwise(np.maximum(h, 0), p, "se.fc2", kept) + p["se.fc2.bias"]
    kept["se.gate.mask"] = pack(abs(h) < 3)
    kept["se.scale.x"], kept["se.scale.gate"] = x, relu6(h + 3) / 6
    return kept


def backward(
    kept: dict[str, Array], gy: Array, p: dict[str, Array], mistake: str = ""
) -> tuple[Array, dict[str, Array]]:
    """gx and the parameters' gradients, with one usual mistake."""
    x, gate, grads = kept["se.scale.x"], kept["se.scale.gate"], {}
    g = (gy * x).sum(axis=(1, 2), keepdims=True)
    g = g / gy[0, :, :, 0].size if mistake == "averaged" else g
    if mistake != "gate mask":
        g = g * unpack(kept["se.gate.mask"], g.shape)
    g = g if mistake == "six" else g / 6
    for name, mask in (("se.fc2", "se.act.mask"), ("se.fc1", "")):
        w = p[f"{name}.weight"]
        grads[f"{name}.weight"] = (rows(g).T @ rows(kept[f"{name}.x"])).reshape(w.shape)
        grads[f"{name}.bias"] = (
            g.mean(axis=(0, 1, 2)) if mistake == "mean bias" else g.sum(axis=(0, 1, 2))
        )
        g = g @ w[:, :, 0, 0]
        g = g * unpack(kept[mask], g.shape) if mask and mistake != "act mask" else g
    g = g if mistake == "pool" else g / gy[0, :, :, 0].size
    direct = gate * gy
    gx = {"direct": direct, "gate only": np.broadcast_to(g, x.shape)}.get(mistake, direct + g)
    return gx, grads


PATHS = {
    "averaged": "the gate's gradient is a sum of gy x over H and W, not a mean.",
    "gate mask": "hard-sigmoid has slope 0 where its input is beyond -3 or 3: se.gate.mask tells where.",
    "six": "a factor of 6: the slope of hard-sigmoid is 1/6.",
    "act mask": "ReLU lets nothing through where its input was not above 0: se.act.mask tells where.",
    "mean bias": "a bias is added to every sample: its gradient is a sum over them, not a mean.",
    "pool": "the mean over H and W gives each position 1 / (H W) of the gradient.",
    "direct": "x reaches y on two paths; the one through the gate is missing.",
    "gate only": "x reaches y on two paths; the direct one, gate gy, is missing.",
}


@exercise(
    "7b",
    hints=(
        "From the end: the product gives `gate gy` for x at once, and ggate. Take ggate back through hard-sigmoid, "
        "fc2, ReLU, fc1 and the mean, and add what arrives to the first.",
        "g = ggate * unpack(kept['se.gate.mask'], ggate.shape) / 6; then for fc2: gw = rows(g).T @ "
        "rows(kept['se.fc2.x']), gb = g.sum(axis=(0, 1, 2)), g = g @ w[:, :, 0, 0]; times ReLU's mask; the same for "
        "fc1; at last gx = gate * gy + g / (H * W).",
    ),
)
def whole_backward(case: Case, squeeze_excite_backward: Attempt) -> None:
    """Every gradient, from the top down."""
    p, x, gy = draw(case)
    kept = forward(x, p)
    gx, grads = case.results(
        ("gx", "the parameters' gradients"), squeeze_excite_backward(kept, gy, p)
    )
    right_gx, right = backward(kept, gy, p)
    case.need(isinstance(grads, dict), "The parameters' gradients should be a dictionary by name.")
    missing = [name for name in right if name not in grads]
    case.need(not missing, f"The gradient of {', '.join(missing)} is missing.")
    case.need(grads.keys() == right.keys(), f"Expected gradients of {', '.join(right)} only.")
    usual = {sentence: backward(kept, gy, p, mistake) for mistake, sentence in PATHS.items()}
    for name in right:
        likely = {sentence: lambda w=wrong, n=name: w[1][n] for sentence, wrong in usual.items()}
        case.same(f"the gradient of {name}", grads[name], right[name], likely)
    case.same(
        "gx", gx, right_gx, {sentence: lambda w=wrong: w[0] for sentence, wrong in usual.items()}
    )


@exercise(
    "7c",
    hints=(
        "First G, one (O, C) per sample: an array (N, O, C). Both ggate and gw come from it, each by one more sum.",
        'g = np.einsum("nhwo,nhwc->noc", gy, x); ggate is "noc,oc->nc", gw is "noc,nc->oc", and gx is '
        '"nhwo,oc,nc->nhwc". Give them their shapes with reshape.',
    ),
)
def all_samples_at_once(case: Case, gated_conv_backward_at_once: Attempt) -> None:
    """Three gradients, with O = C too, where a wrong axis goes unnoticed by shape."""
    shape = case.map_shape()
    n, _, _, c = shape
    for o in (c, c + 2):
        x, gate = case.normal(*shape), case.uniform(0.1, 0.9, n, 1, 1, c)
        w, gy = case.normal(o, c, 1, 1), case.normal(*shape[:3], o)
        matrix, small = w[:, :, 0, 0], gate[:, 0, 0]
        each = np.einsum("nhwo,nhwc->noc", gy, x)
        results = gated_conv_backward_at_once({"x": x, "gate": gate}, gy, w)
        gx, ggate, gw = case.results(("gx", "ggate", "gw"), results)
        likely = {}
        if o == c:
            likely["the gate belongs to the input channels of W, its second axis."] = (
                lambda s=gy, m=matrix, g=small: np.einsum("nhwo,oc,no->nhwc", s, m, g)
            )
        case.same(
            "gx",
            gx,
            gate * (gy @ matrix),
            likely | {"the gate is missing: gx_n = gy_n (W gate_n).": lambda s=gy, m=matrix: s @ m},
        )
        case.same(
            "ggate",
            ggate,
            np.einsum("noc,oc->nc", each, matrix).reshape(gate.shape),
            {
                "the weights are missing: ggate_n = sum over o of W G_n.": lambda e=each: e.sum(
                    axis=1
                )[:, None, None],
                "each sample has a gate of its own: do not sum G over n before.": (
                    lambda e=each, m=matrix: np.broadcast_to(
                        (e.sum(axis=0) * m).sum(axis=0), (n, 1, 1, c)
                    )
                ),
                "yours has G_n gate_n where G_n is wanted: the gate's own gradient does not see the gate.": (
                    lambda e=each, m=matrix, g=small: np.einsum("noc,oc,nc->nc", e, m, g)[
                        :, None, None
                    ]
                ),
            },
        )
        case.same(
            "gw",
            gw,
            np.einsum("noc,nc->oc", each, small).reshape(w.shape),
            {
                "the gate is missing: gw = sum over n of G_n gate_n.": lambda e=each: e.sum(axis=0)[
                    :, :, None, None
                ],
                "each sample's G has to meet its own gate before the sum over n.": (
                    lambda e=each, g=small: (e.sum(axis=0) * g.sum(axis=0))[:, :, None, None]
                ),
                "a weight serves all samples: sum over n, not mean.": (
                    lambda e=each, g=small: np.einsum("noc,nc->oc", e, g)[:, :, None, None] / n
                ),
            },
        )
