"""Cases of encoded inputs, subspaces, pruned weights and integers: NumPy by hand passes them, and mistakes are caught.

The implementations follow the written specification, not minitl's ops.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from own import step

from minitl import MinitlError, oracle
from minitl.oracle import mechanisms
from minitl.oracle.case import from_layout, to_layout

Array = np.ndarray[Any, Any]
Answer = dict[str, Array]
NAMES = [entry.name for op in mechanisms.ATTRS for entry in oracle.entries() if entry.op == op]


def same(array: Array) -> Array:
    return array


def columns(x: Array, k: int, s: int) -> Array:
    """(N, Ho, Wo, C, k, k) of patches."""
    padded = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    return np.lib.stride_tricks.sliding_window_view(padded, (k, k), (1, 2))[:, ::s, ::s]


def conv(x: Array, w: Array, s: int) -> Array:
    return np.einsum("nijcuv,ocuv->nijo", columns(x, w.shape[2], s), w)


def conv_back(shape: tuple[int, ...], w: Array, gy: Array, s: int) -> Array:
    n, h, wide, c = shape
    k = w.shape[2]
    gx = np.zeros((n, h + 2 * (k // 2) + s, wide + 2 * (k // 2) + s, c), gy.dtype)
    for u in range(k):
        for v in range(k):
            gx[:, u : u + s * gy.shape[1] : s, v : v + s * gy.shape[2] : s] += gy @ w[:, :, u, v]
    return gx[:, k // 2 : k // 2 + h, k // 2 : k // 2 + wide]


def weight_back(x: Array, gy: Array, k: int, s: int) -> Array:
    return np.einsum("nijcuv,nijo->ocuv", columns(x, k, s), gy)


def coded_conv(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    x, w, gy = v["input.x"], v["param.weight"], v["grad_output"]
    if a["rule"] == "razor":
        flat = x.reshape(len(x), -1)
        count = wrong.get("count", flat.shape[1] - flat.shape[1] // 2)
        order = np.argsort(-np.abs(flat), axis=1, kind="stable")[:, :count]
        mask = np.zeros(flat.shape, bool)
        np.put_along_axis(mask, order, True, axis=1)
        kept = {"kept.mask": np.packbits(mask, axis=1, bitorder=wrong.get("bitorder", "little"))}
        kept["kept.values"] = flat[mask].reshape(len(x), -1)
        decoded = (flat * mask).reshape(x.shape)
    elif a["rule"] == "channels":
        chosen = [int(c) for c in a["kept_channels"].split(",")]
        kept, decoded = {"kept.x": x[..., chosen]}, np.zeros_like(x)
        decoded[..., chosen] = x[..., wrong.get("channels", chosen)]
    else:
        kept, decoded = quantised(x, v["input.noise"], int(a["rule"][-1]), wrong)
    k, s = a["kernel"], a["stride"]
    return {
        "output": conv(x, w, s),
        "grad_input.x": conv_back(x.shape, w, gy, s),
        "grad_param.weight": weight_back(wrong.get("keep", same)(decoded), gy, k, s),
        **kept,
    }


def bfloat16(values: Array, up: bool) -> Array:
    """float32 numbers whose lower 16 bits are 0, none below (up) or above the values (float64)."""
    near = values.astype(np.float32)
    cut = (near.view(np.uint32) & 0xFFFF0000).view(np.float32)
    step = (near.view(np.uint32) & 0xFFFF0000) + 0x10000
    away = step.view(np.float32)
    too_small = cut < values if up else cut > values
    return np.where(too_small, away, cut)


def quantised(x: Array, noise: Array, bits: int, wrong: dict[str, Any]) -> tuple[Answer, Array]:
    flat = x.reshape(len(x), -1)
    padded = np.pad(flat, ((0, 0), (0, -flat.shape[1] % 256))).reshape(-1, 256)
    low = bfloat16(padded.min(axis=1).astype(np.float64), up=False)[:, None]
    top = 2**bits - 1
    size = bfloat16(((padded.max(axis=1) - low[:, 0]) / top).astype(np.float64), up=True)[:, None]
    scaled = (padded - low.astype(x.dtype)) / size.astype(x.dtype)
    added = noise.astype(x.dtype) + x.dtype.type(wrong.get("noise", 0.0))
    code = np.minimum(np.floor(scaled + added), top).astype(np.uint8)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)[:: wrong.get("order", 1)]
    packed = (code.reshape(len(code), -1, 8 // bits) << shifts).sum(axis=2).astype(np.uint8)
    ranges = np.concatenate([low, size], axis=1)
    kept = {"kept.codes": packed, "kept.ranges": (ranges.view(np.uint32) >> 16).astype(np.uint16)}
    decoded = low.astype(x.dtype) + size.astype(x.dtype) * code
    return kept, decoded.reshape(len(x), -1)[:, : flat.shape[1]].reshape(x.shape)


def subspace_conv(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    x, w, gy = v["input.x"], v["param.weight"], v["grad_output"]
    bases, after = [v[f"buffer.basis_{axis}"] for axis in "hwc"], {}
    if a["rule"] == "subspace":
        for i, axis in enumerate("hwc"):
            unfolded = np.moveaxis(x, i + 1, 0).reshape(x.shape[i + 1], -1)
            q, r = np.linalg.qr(unfolded @ (unfolded.T @ bases[i].T))  # LAPACK's signs
            bases[i] = np.ascontiguousarray((q * wrong.get("sign", np.sign)(np.diag(r)) * np.sign(np.diag(r))).T)
            after[f"buffer_after.basis_{axis}"] = bases[i]
        if wrong.get("late"):
            bases = [v[f"buffer.basis_{axis}"] for axis in "hwc"]
    core = np.einsum("nhwc,ah,bw,dc->nabd", x, *bases)
    restored = np.einsum("nabd,ah,bw,dc->nhwc", core, *bases)
    given = restored if wrong.get("everywhere") else x
    return {
        "output": conv(given, w, a["stride"]),
        "grad_input.x": conv_back(x.shape, w, gy, a["stride"]),
        "grad_param.weight": weight_back(wrong.get("keep", same)(restored), gy, a["kernel"], a["stride"]),
        "kept.core": core,
        **after,
    }


def integer_conv(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    def codes(values: Array, noise: Array | None = None) -> tuple[Array, Any]:
        scale = np.abs(values).max() / values.dtype.type(wrong.get("most", 127))
        scaled = values / scale
        whole = np.rint(scaled) if noise is None else np.floor(scaled + noise)
        return np.clip(whole, -127, 127).astype(np.int64), scale

    noise = None if wrong.get("nearest") else v["input.noise"].astype(v["grad_output"].dtype)
    (x, sx), (w, sw), (g, sg) = codes(v["input.x"]), codes(v["param.weight"]), codes(v["grad_output"], noise)
    groups, s, k = a["groups"], a["stride"], a["kernel"]
    parts = list(zip(np.split(x, groups, 3), np.split(w, groups), np.split(g, groups, 3), strict=True))
    dtype = v["input.x"].dtype
    return {
        "output": sx * sw * np.concatenate([conv(i, f, s) for i, f, _ in parts], 3).astype(dtype),
        "grad_input.x": sg * sw * np.concatenate([conv_back(i.shape, f, o, s) for i, f, o in parts], 3).astype(dtype),
        "grad_param.weight": sg * sx * np.concatenate([weight_back(i, o, k, s) for i, _, o in parts]).astype(dtype),
        "kept.codes": x.astype(np.int8),
        "kept.scale": np.array([sx]),
    }


def largest(w: Array, keep: int, of: int, axis: int) -> Array:
    groups = np.moveaxis(w, axis, -1).reshape(-1, of)
    order = np.argsort(-np.abs(groups), axis=1, kind="stable")[:, :keep]
    mask = np.zeros(groups.shape)
    np.put_along_axis(mask, order, 1, axis=1)
    return np.moveaxis(mask.reshape(np.moveaxis(w, axis, -1).shape), -1, axis).astype(w.dtype)


def pruned(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    x, gy, whole = v["input.x"], v["grad_output"], v["param.weight"]
    w = whole.reshape(whole.shape[:2])
    mask = largest(w, a["keep"], a["of"], wrong.get("axis", 1))
    w_r = w * mask
    w_rc = w_r if wrong.get("once") else w_r * largest(w_r, a["keep"], a["of"], 0)
    gw = gy.reshape(-1, gy.shape[-1]).T @ x.reshape(-1, x.shape[-1])
    gw = gw if wrong.get("dense") else gw * mask
    found = {"output": x @ w_r.T, "grad_input.x": gy @ w_rc, "grad_param.weight": gw.reshape(whole.shape), "kept.x": x}
    if a["bias"]:
        found["output"] = found["output"] + v["param.bias"]
        found["grad_param.bias"] = gy.reshape(-1, gy.shape[-1]).sum(axis=0)
    return found


def multiply(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    x, y, gy = v["input.x"], v["input.y"], v["grad_output"]
    first, second = (x, y) if wrong.get("swapped") else (y, x)
    return {"output": x * y, "grad_input.x": gy * first, "grad_input.y": gy * second, "kept.a": x, "kept.b": y}


def add_channels(a: dict[str, Any], v: Answer, wrong: dict[str, Any]) -> Answer:
    gy = v["grad_output"]
    reduce = np.mean if wrong.get("mean") else np.sum
    return {
        "output": v["input.x"] + v["input.v"],
        "grad_input.x": gy,
        "grad_input.v": reduce(gy, axis=(1, 2), keepdims=True),
    }


BY_HAND: dict[str, Callable[[dict[str, Any], Answer, dict[str, Any]], Answer]] = {
    "coded_conv": coded_conv, "subspace_conv": subspace_conv, "integer_conv": integer_conv, "pruned_conv": pruned,
    "pruned_linear": pruned, "multiply": multiply, "add_channels": add_channels,
}  # fmt: skip


def by_hand(case: oracle.Case, dtype: str, **wrong: Any) -> Answer:
    flows = ("input.", "grad_output")
    values = {n: from_layout(t, case.layout) if n.startswith(flows) else t for n, t in case.inputs.items()}
    found = BY_HAND[case.op](case.attrs, {n: t.astype(dtype) for n, t in values.items()}, wrong)
    out = ("output", "grad_input.", "kept.")
    return {n: to_layout(t, case.layout) if n.startswith(out) else t for n, t in found.items()}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numpy_by_hand_passes(name: str, layout: str, dtype: str) -> None:
    (case,) = oracle.cases(name, layout=layout)
    got = by_hand(case, dtype)
    assert got.keys() == case.expected.keys()
    assert {t.dtype.name for n, t in got.items() if n in case.required} == {dtype}
    case.check(got)


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("coded_conv-quantised8", {"noise": 0.5}, "kept.codes"),  # rounded to nearest and at random both
    ("coded_conv-quantised4-k1", {"noise": -0.5}, "grad_param.weight"),
    ("coded_conv-quantised2", {"order": -1}, "kept.codes"),
    ("coded_conv-quantised2-two-groups", {"keep": np.zeros_like}, "grad_param.weight"),
    ("coded_conv-razor", {"count": 16}, "kept.mask"),
    ("coded_conv-razor", {"bitorder": "big"}, "kept.mask"),
    ("coded_conv-channels", {"channels": [0, 2]}, "grad_param.weight"),
    ("subspace_conv-fixed-k3-s1", {"everywhere": True}, "output"),  # the forward from the restored input too
    ("subspace_conv-fixed-k1", {"keep": lambda x: 1.002 * x}, "grad_param.weight"),
    ("subspace_conv-follows-k1", {"sign": np.abs}, "buffer_after.basis_c"),
    ("subspace_conv-follows-k3-s2", {"late": True}, "kept.core"),  # moved after they were used
    ("integer_conv-k3-s1", {"most": 128}, "output"),
    ("integer_conv-bit-serial-k3-s2", {"nearest": True}, "grad_param.weight"),
    ("pruned_conv-2-of-4", {"once": True}, "grad_input.x"),  # the derivative of the forward: not SLoPe's
    ("pruned_conv-2-of-4", {"dense": True}, "grad_param.weight"),
    ("pruned_linear-2-of-4", {"axis": 0}, "output"),
    ("multiply", {"swapped": True}, "grad_input.x"),
    ("add_channels", {"mean": True}, "grad_input.v"),
]


@pytest.mark.parametrize(("name", "wrong", "tensor"), MISTAKES, ids=[f"{n}-{next(iter(w))}" for n, w, _ in MISTAKES])
def test_a_mistake_is_caught_where_it_is(name: str, wrong: dict[str, Any], tensor: str) -> None:
    (case,) = oracle.cases(name)
    report = case.compare(by_hand(case, "float32", **wrong))
    assert tensor in {line.tensor for line in report.lines if not line.ok}


def test_a_wrong_basis_hides_no_cause() -> None:
    (case,) = oracle.cases("subspace_conv-follows-k1")
    got = {name: array.copy() for name, array in case.expected.items()}
    got["grad_param.weight"] *= 2
    got["buffer_after.basis_h"] += 0.25
    causes = {line.tensor: line.cause for line in case.compare(got).lines if not line.ok}
    assert causes.keys() == {"grad_param.weight", "buffer_after.basis_h"}
    assert "a gradient doubled" in causes["grad_param.weight"]


def test_the_noise_that_is_given_is_what_minitl_adds() -> None:
    """The other way round: with other noise its own codes are other ones."""
    (case,) = oracle.cases("coded_conv-quantised8")
    case.tensors["input.noise"] = 1 - case.tensors["input.noise"]
    wrong = {line.tensor for line in case.compare(step(case, "float32")).lines if not line.ok}
    assert {"kept.codes", "grad_param.weight"} <= wrong


@pytest.mark.parametrize(
    ("op", "attrs"),
    [
        ("pruned_conv", {"of": 3}),
        ("pruned_linear", {"keep": 5}),
        ("subspace_conv", {"ranks": "9,2,3"}),
        ("coded_conv", {"rule": "channels", "kept_channels": "2,7"}),
        ("coded_conv", {"rule": "filter2"}),
        ("integer_conv", {"groups": 4}),
    ],
)
def test_what_does_not_fit_is_refused(op: str, attrs: dict[str, Any]) -> None:
    with pytest.raises(MinitlError):
        oracle.make(op, attrs=attrs)
