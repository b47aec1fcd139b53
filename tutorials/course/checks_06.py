"""Checks of tutorial 6, the block."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import minitl
import numpy as np
from minitl.layers import LayerPlan

from course.attempt import Attempt
from course.block import backward, forward
from course.case import Case
from course.exercise import exercise
from course.pieces import random_block
from course.rows import Rows, same_rows

METHODS = {"vanilla": "ft-blocks", "mobiletl": "mobiletl"}
MOBILETL = {"shift_only": True, "signs": True}
CONVOLUTIONS = ("expand.weight", "depthwise.weight", "project.weight")


def minitl_rows(sizes: dict[str, Any], method: minitl.methods.Method) -> Rows:
    """What minitl foresees for a block, by name."""
    net = minitl.networks.irb(
        in_channels=sizes["inputs"],
        expanded_channels=sizes["expanded"],
        out_channels=sizes["outputs"],
        stride=sizes["stride"],
        activation=sizes["kind"],
        se_channels=0,
    )
    ledger = minitl.accounting.predict(
        method.apply(net), batch=sizes["batch"], resolution=sizes["resolution"]
    )
    return {f"{row.layer}.{row.tensor}": row.bytes for row in ledger.rows}


def by_shapes(sizes: dict[str, Any], method: str, mistake: str = "") -> Rows:
    """The rows from shapes, with one usual mistake."""
    n, high, i, e, o = (
        sizes[key] for key in ("batch", "resolution", "inputs", "expanded", "outputs")
    )
    low = high // 2 if mistake == "floor" else -(-high // 2)
    after = low if sizes["stride"] == 2 and mistake != "stride" else high
    before = after if mistake == "before" else high

    def packed(side: int) -> Any:
        positions = n * side * side
        bits = positions * (1 if method == "mobiletl" else 2)
        usual = {
            "whole": e * (bits // 8),
            "eighths": e * bits / 8,
            "added": e * (bits // 8 + 1),
            "at once": e * bits // 8,
            "at once, up": -(-e * bits // 8),
            "twice a mask": e * -(-positions // 8) * bits // positions,
        }
        return usual.get(mistake, e * -(-bits // 8))

    rows: dict[str, Any] = {"expand.x": 4 * n * high**2 * i}
    for name, side, inside in (("expand", high, high), ("depthwise", after, before)):
        if name == "depthwise":
            rows["depthwise.x"] = 4 * n * inside**2 * e
        if method == "vanilla" or mistake == "frozen":
            rows |= {f"{name}_norm.x_hat": 4 * n * side**2 * e, f"{name}_norm.inv_std": 4 * e}
        if method == "mobiletl" or sizes["kind"] == "relu6":
            rows[f"{name}_act.{'mask' if method == 'mobiletl' else 'codes'}"] = packed(side)
        else:
            rows[f"{name}_act.x"] = 4 * n * side**2 * e
    rows["project.x"] = 4 * n * after**2 * e
    if mistake != "last" or method == "vanilla":
        rows |= {"project_norm.x_hat": 4 * n * after**2 * o, "project_norm.inv_std": 4 * o}
    if mistake == "inv_std":
        rows = {name: count for name, count in rows.items() if "inv_std" not in name}
    if mistake == "add" and sizes["stride"] == 1 and i == o:
        rows["add.x"] = 4 * n * high**2 * i
    return rows


@exercise(
    "6a",
    hints=(
        "Three sizes do nearly all: the input map, the wide map before the depthwise convolution and the wide map "
        "behind it. Packed bits are rounded up to whole bytes per channel.",
        "after = -(-resolution // stride); a mask of a map of M positions has expanded * -(-M // 8) bytes, codes "
        "expanded * -(-2 * M // 8); project.x and depthwise_norm.x_hat have M = batch * after**2.",
    ),
)
def rows_from_shapes(case: Case, predict_rows: Attempt) -> None:
    """Against minitl's prediction, both strides, kinds and methods."""
    batch, resolution, inputs, expanded = (
        int(case.rng.choice(c)) for c in ([3, 11], [5, 9, 13], [6, 10], [14, 19, 21])
    )
    same = {"resolution": resolution, "inputs": inputs, "expanded": expanded}
    for n, stride, kind in (  # M mod 8 is 3, and at last 0
        (batch, 1, "relu6"),
        (batch, 1, "hard_swish"),
        (batch, 2, "relu6"),
        (batch, 2, "hard_swish"),
        (8, 1, "relu6"),
    ):
        outputs = inputs if kind == "relu6" else inputs + 3
        sizes = same | {"batch": n, "outputs": outputs, "stride": stride, "kind": kind}
        for method, name in METHODS.items():
            got = predict_rows(dict(sizes), method)
            likely = {
                sentence: lambda m=mistake, s=sizes, way=method: by_shapes(s, way, m)
                for mistake, sentence in ROW_MISTAKES.items()
            }
            where = f"{method}, {kind}, stride {stride}: "
            same_rows(got, minitl_rows(sizes, minitl.methods.get(name, blocks=1)), likely, where)


ROW_MISTAKES = {
    "added": "8 positions take 1 byte per channel, not 2: round up, which is not to add a byte.",
    "at once": "each channel's last byte is filled up: round up before you multiply by the channels.",
    "at once, up": "each channel has a last byte of its own: round up first, then multiply by the channels.",
    "twice a mask": "codes are packed on their own, two bits per position: ceil(2 M / 8) bytes per channel, which can "
    "be one less than twice a mask's.",
    "eighths": "packed bits fill whole bytes: 98 positions take 13 bytes per channel, not 12.25.",
    "whole": "98 positions take 13 bytes per channel, not 12: the last byte is filled up with zeros.",
    "stride": "behind a stride of 2 the map has half the rows and columns: depthwise_norm, depthwise_act, project and "
    "project_norm see that one.",
    "floor": "7 rows give 4 with stride 2, not 3: round up.",
    "before": "the depthwise convolution keeps its input, which still has all rows and columns.",
    "inv_std": "a batch norm keeps inv_std too, 4 bytes per channel: its input gradient is scaled by it.",
    "last": "the block's last norm uses the batch under either method, and keeps x_hat and inv_std.",
    "frozen": "MobileTL's inner norms train their shift only, under frozen statistics: they keep nothing.",
    "add": "an addition keeps nothing: its gradient is gy itself.",
}


@exercise(
    "6b",
    hints=(
        "Copy `forward` and `backward` into one function. Three lines change: both depthwise calls get the stride, "
        "and the residual, forward and backward, asks for the stride and for the shapes.",
        "residual = stride == 1 and h.shape == x.shape, and at the end "
        'grads["x"] = g + gy if residual else g, with frozen_norm and signs=True inside.',
    ),
)
def block_with_stride(case: Case, strided_block: Attempt) -> None:
    """With and without residual, and on a map of 1x1."""
    height, width = (int(side) for side in case.rng.permutation([3, 5, 7])[:2])
    for kind, stride, channels, outputs, sides in (
        ("hard_swish", 1, 5, 5, (height, width)),
        ("relu6", 2, 5, 5, (height, width)),
        ("hard_swish", 1, 5, 7, (height, width)),
        ("hard_swish", 2, 5, 5, (1, 1)),
    ):
        p = random_block(case.rng, channels, 11, outputs, 3)
        p = {name: value.astype(case.dtype) for name, value in p.items()}
        x = 3 * case.normal(5, *sides, channels)
        y, kept = forward(x, p, kind=kind, stride=stride, **MOBILETL)
        gy = case.normal(*y.shape)
        got_y, grads = case.results(("y", "the gradients"), strided_block(x, p, gy, kind, stride))
        residual = stride == 1 and y.shape == x.shape
        like_x = y.shape == x.shape

        def thinned(p: Any = p, x: Any = x, kind: str = kind) -> Any:
            few = x[:, ::2, ::2]
            return forward(few, p, kind=kind, stride=1, **MOBILETL)[0] - few

        likely = {}
        if like_x and not residual:
            sentence = "on a map of 1x1 a block of stride 2 gives a y of x's shape, and has no residual all the same."
            likely[sentence] = lambda y=y, x=x: y + x
        if residual:
            likely["the residual is missing."] = lambda y=y, x=x: y - x
        if stride == 2 and not like_x:
            likely[
                "positions are left out before the depthwise convolution, which should see all of them."
            ] = thinned
        case.same(f"y (stride {stride})", got_y, y, likely)
        _same_gradients(
            case, grads, backward(kept, gy, p, stride), (x, p, gy, kind, stride, residual)
        )


def _same_gradients(case: Case, got: Any, expected: dict[str, Any], given: tuple[Any, ...]) -> None:
    x, p, gy, kind, stride, residual = given
    case.need(isinstance(got, dict), "The gradients should be a dictionary by name.")
    missing, strange = sorted(expected.keys() - got.keys()), sorted(got.keys() - expected.keys())
    case.need(not missing, f"The gradient of {', '.join(missing)} is missing.")
    case.need(
        not any("norm.weight" in name for name in strange),
        "MobileTL's inner norms train their shift only; you give a gradient of their scale.",
    )
    case.need(not strange, f"There should be no gradient of {', '.join(strange)}.")
    exact = backward(
        forward(x, p, kind=kind, stride=stride, shift_only=True, signs=False)[1], gy, p, stride
    )
    for name in reversed(expected):
        likely = {
            "this is the gradient with exact slopes; MobileTL's switch is signs=True.": lambda n=name: (
                exact[n]
            )
        }
        if name == "x" and residual:
            likely[
                "x is used twice, and its gradient is a sum of two: the residual's gy is missing."
            ] = lambda: expected["x"] - gy
        if name == "x" and not residual and gy.shape == x.shape:
            likely["gy is added, but there is no residual here."] = lambda: expected["x"] + gy
        case.same(f"the gradient of {name}", got[name], expected[name], likely)


@exercise(
    "6c",
    hints=(
        "Run forward twice, with signs=True and signs=False, everything else alike, and each kept through backward "
        "with the same gy. Flatten the two gradients of a weight; then it is a product of two vectors.",
        "a @ b / (np.linalg.norm(a) * np.linalg.norm(b)), for a, b = exact[name].ravel(), signed[name].ravel().",
    ),
)
def angles(case: Case, cosines: Attempt) -> None:
    """Of a random block, against the definition."""
    height, width = (int(side) for side in case.rng.permutation([3, 5, 7])[:2])
    p = {
        name: value.astype(case.dtype)
        for name, value in random_block(case.rng, 5, 22, 5, 3).items()
    }
    x, gy = case.normal(3, height, width, 5), case.normal(3, height, width, 5)

    def gradients(**switches: Any) -> dict[str, Any]:
        return backward(
            forward(x, p, **{"kind": "hard_swish", "shift_only": True} | switches)[1], gy, p
        )

    exact, signed = gradients(signs=False), gradients(signs=True)
    vanilla, clipped = gradients(signs=False, shift_only=False), gradients(signs=True, kind="relu6")
    got = cosines(x, p, gy, forward, backward)
    case.need(isinstance(got, dict), "It should return a dictionary: name to cosine.")
    case.need(set(got) == set(CONVOLUTIONS), f"The names should be {', '.join(CONVOLUTIONS)}.")

    def vector(cosine: Any, one: dict[str, Any], other: dict[str, Any]) -> Any:
        return np.array([cosine(one[name].ravel(), other[name].ravel()) for name in CONVOLUTIONS])

    def cosine(a: Any, b: Any) -> Any:
        return a @ b / (np.linalg.norm(a) * np.linalg.norm(b))

    case.same(
        "the cosine",
        np.array([float(got[name]) for name in CONVOLUTIONS]),
        vector(cosine, exact, signed).astype(float),
        {
            "this is <a, b>; divide it by the lengths of both.": lambda: vector(
                np.dot, exact, signed
            ),
            "you divide by the squared lengths: take their roots.": (
                lambda: vector(lambda a, b: a @ b / (a @ a * (b @ b)), exact, signed)
            ),
            "shift_only differs between your two runs, or is off in one: two functions are compared, not two slopes.": (
                lambda: vector(cosine, vanilla, signed)
            ),
            "your second run has another activation: kind should be hard_swish in both.": (
                lambda: vector(cosine, exact, clipped)
            ),
        },
        at={"weight": np.array(CONVOLUTIONS)},
    )


@exercise(
    "6d",
    hints=(
        "Go through the rows and ask each: which gradient are you for, and is it still wanted? The shift of "
        "expand_norm is trained, so gy must still come down to it.",
        "expand.x goes under both. Under vanilla one buffer of expand_norm was for its input gradient alone.",
    ),
)
def without_expand(case: Case, rows_that_go: Attempt) -> None:
    """Against minitl, with that one layer frozen."""
    sizes = {
        "batch": 2,
        "resolution": 7,
        "inputs": 4,
        "expanded": 8,
        "outputs": 4,
        "stride": 1,
        "kind": "relu6",
    }
    for name, known in METHODS.items():
        method = minitl.methods.get(known, blocks=1)

        def policy(layer: Any, blocks: int, method: Any = method) -> LayerPlan:
            return LayerPlan() if layer.role == "expand" else method.policy(layer, blocks)

        gone = set(minitl_rows(sizes, method)) - set(
            minitl_rows(sizes, replace(method, policy=policy))
        )
        got = rows_that_go(name)
        case.need(
            isinstance(got, set | frozenset | list | tuple),
            f"{name}: it should return a set of names.",
        )
        got = set(got)
        case.need(
            "expand.x" in got,
            f"{name}: expand.x was for the weight's gradient, which nobody wants now.",
        )
        act = [row for row in sorted(got) if row.startswith("expand_act")]
        case.need(
            not act,
            f"{name}: {', '.join(act)} stays. expand_norm still trains its shift, and the gradient for it passes "
            "through the activation.",
        )
        case.need(
            "expand_norm.x_hat" not in got,
            f"{name}: expand_norm.x_hat is not gone: vanilla trains the scale, whose gradient needs it, and MobileTL "
            "had none to lose.",
        )
        case.need(
            name == "vanilla" or "expand_norm.inv_std" not in got,
            f"{name}: MobileTL's expand_norm had no inv_std.",
        )
        case.need(
            not (gone - got),
            f"{name}: one more row goes. Which buffer of expand_norm was for its input gradient alone?",
        )
        case.need(got == gone, f"{name}: {', '.join(sorted(got - gone))} does not go.")
