"""Wrong implementations of MobileTL, each a small patch of a correct one, for the oracle to catch.

`Correct` is a compact NumPy implementation cut into small methods. A mutant overrides one or two
of them with a mistake that people make. `answer(case)` gives what the oracle asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray
Back = Callable[[Array], Any]
Result = tuple[Array, Back]

INNER_NORMS = ("expand_norm.", "depthwise_norm.")
BASELINE = {"relu": "exact", "relu6": "codes", "hard_swish": "exact", "hard_sigmoid": "exact"}
EXACT_ABOVE = {"relu": "exact", "relu6": "band", "hard_swish": "exact"}  # mobiletl-exact's rules over a pool
B = 1.0773837106674353  # the outer border of Hard-Swish's slope in two bits; the rest follows from it
OUTER, INNER = -B * (3 - B) / (6 * (10 - B)), (3 - B) / 6
FEW_LEVELS = {
    "few2": ([-B, 0, B], [OUTER, INNER, 1 - INNER, 1 - OUTER]),
    "few4": ([3 * i / 7 - 3 for i in range(15)], [0, *((i - 3) / 7 for i in range(14)), 1]),
}
MUTANTS: dict[str, type[Correct]] = {}


class Correct:
    """One answer to one case. Each op gives its output and a function from gy to gx; both fill in the rest."""

    def __init__(self, case: Any) -> None:
        self.attrs, self.method, self.rule, self.layout = case.attrs, case.method, case.rule, case.layout
        self.required, self.op = set(case.required), case.op
        arrays = {name: np.array(a) for name, a in case.inputs.items()}
        self.p = {n.split(".", 1)[1]: a for n, a in arrays.items() if n.startswith(("param.", "buffer."))}
        self.parameters = [n.removeprefix("param.") for n in arrays if n.startswith("param.")]
        self.x, self.gy = self.inward(arrays["input.x"]), self.inward(arrays["grad_output"])
        self.labels = arrays.get("input.labels")
        self.second = next((n for n in arrays if n in ("input.gate", "input.y")), "")
        self.other = self.inward(arrays[self.second]) if self.second else self.x
        self.g_other: Array | None = None
        self.grads: dict[str, Array] = {}
        self.after: dict[str, Array] = {}
        self.kept: dict[str, Array] = {}

    def answer(self) -> dict[str, Array]:
        y, back = self.run()
        gx = back(self.gy)
        got = {"output": self.outward(y)}
        if "grad_input.x" in self.required:
            got["grad_input.x"] = self.outward(gx)
        if self.g_other is not None:
            got[f"grad_{self.second}"] = self.outward(self.g_other)
        got |= {f"grad_param.{n}": g for n, g in self.grads.items() if self.trains(n)}
        if self.op == "network":
            got["output.logits"] = self.logits
            got |= {f"param_after.{n}": self.updated(n, g) for n, g in self.grads.items() if self.trains(n)}
        got |= {f"buffer_after.{n}": a for n, a in self.after.items()}
        return got | {f"kept.{n}": a for n, a in self.kept.items()}

    def run(self) -> Result:
        stride = self.attrs.get("stride", 1)
        match self.op:
            case "conv" | "pointwise_conv" | "linear":
                return self.conv("", self.x, stride)
            case "depthwise_conv":
                return self.conv("", self.x, stride, depthwise=True)
            case "grouped_conv":
                return self.conv("", self.x, stride, groups=self.attrs["groups"])
            case "standardised_conv":
                return self.standardised_conv(self.x, stride)
            case "filtered_conv":
                return self.filtered_conv(self.x, stride)
            case "group_norm":
                return self.group_norm(self.x)
            case "avg_pool":
                return self.avg_pool(self.x)
            case "bilinear_up":
                return self.bilinear_up(self.x)
            case "pooled_head":
                return self.pooled_head(self.x)
            case "residual":
                return self.residual(self.x)
            case "network":
                return self.network(self.x)
            case "batch_norm":
                return self.batch_norm("", self.x)
            case "frozen_norm":
                return self.frozen_norm("", self.x)
            case "relu" | "relu6" | "hard_swish" | "hard_sigmoid" | "sigmoid" | "silu":
                return self.act("", self.x, self.op, self.rule)
            case "squeeze_excite":
                return self.squeeze_excite("", self.x)
            case "global_avg_pool":
                return self.pool(self.x)
            case "cross_entropy":
                assert self.labels is not None
                return self.cross_entropy(self.x, self.labels)
            case "add":
                return self.add(self.x, self.other)
            case "scale":
                return self.multiply(self.x, self.other)
            case "irb":
                return self.irb(self.x)
        raise ValueError(self.op)

    # Layout, and what is trained

    def inward(self, a: Array) -> Array:
        return np.moveaxis(a, 1, -1) if self.layout == "nchw" and a.ndim == 4 else a

    def outward(self, a: Array) -> Array:
        return np.moveaxis(a, -1, 1) if self.layout == "nchw" and a.ndim == 4 else a

    def trains(self, name: str) -> bool:
        if self.op == "network":
            return name in self.tuned and self.trained_by(name.split(".", 1)[-1])
        if self.op != "irb":
            return f"grad_param.{name}" in self.required
        return self.trained_by(name)

    def trained_by(self, name: str) -> bool:
        return self.method in ("ft", "ft-all") or name not in [f"{norm}weight" for norm in INNER_NORMS]

    def updated(self, name: str, gradient: Array) -> Array:
        """A parameter after the step."""
        return self.p[name] - self.p[name].dtype.type(self.attrs["lr"]) * gradient

    # Packed bits: eight positions of a channel a byte, low bit first

    def pack(self, codes: Array, bits: int = 1) -> Array:
        """Codes (..., C) of `bits` bits each."""
        flat = codes.reshape(-1, codes.shape[-1]).astype(np.uint8)
        single = (flat[:, None, :] >> np.arange(bits, dtype=np.uint8)[None, :, None]) & 1
        return self.packbits(single.reshape(-1, flat.shape[1]))

    def packbits(self, flat: Array) -> Array:
        return np.packbits(flat, axis=0, bitorder="little")

    # Convolutions, tap by tap; linear layers are convolutions of one position

    def before(self, size: int, kernel: int, stride: int) -> int:
        """Zeros in front of the first row or column."""
        return kernel // 2

    def taps(self, shape: tuple[int, ...], kernel: int, stride: int) -> Iterator[tuple[int, int, Any]]:
        """Of each tap (u, v), the places of the padded map that it reads."""
        step = self.step_of(stride)
        high, wide = (step * (-(-size // stride) - 1) + 1 for size in shape[1:3])
        for u in range(kernel):
            for v in range(kernel):
                yield u, v, (slice(None), slice(u, u + high, step), slice(v, v + wide, step))

    def plus(self, total: Array, term: Array) -> Array:
        """One step of a sum."""
        return total + term

    def matmul(self, a: Array, b: Array) -> Array:
        return a @ b

    def weight_gradient(self, taps: Array) -> Array:
        """From (O, C / groups, k, k) as summed to what is returned."""
        return taps

    def bias_gradient(self, gy: Array) -> Array:
        return gy.sum(axis=(0, 1, 2))

    def forward_weight(self, w: Array) -> Array:
        """The weights (O, C / groups, k, k) as the forward reads them."""
        return w

    def backward_weight(self, w: Array) -> Array:
        """The weights as the gradient of x reads them."""
        return w

    def pad(self, x: Array, k: int, top: int, left: int) -> Array:
        return np.pad(x, ((0, 0), (top, k), (left, k), (0, 0)))

    def arriving(self, gy: Array) -> Array:
        """gy as a convolution's backward reads it."""
        return gy

    def conv_output(self, y: Array) -> Array:
        return y

    def step_of(self, stride: int) -> int:
        return stride

    def conv(
        self, layer: str, x: Array, stride: int = 1, *,
        depthwise: bool = False, weight: Array | None = None, groups: int = 1,
    ) -> Result:  # fmt: skip
        if x.ndim == 2:
            y, back_map = self.conv(layer, x[:, None, None, :], stride)
            return y[:, 0, 0], lambda gy: back_map(gy[:, None, None, :])[:, 0, 0]
        w, bias = self.p[f"{layer}weight"] if weight is None else weight, self.p.get(f"{layer}bias")
        shape = w.shape
        w = w.reshape(*w.shape[:2], *(w.shape[2:] or (1, 1)))
        k = w.shape[2]
        (n, h, wide, c), o = x.shape, len(w)
        top, left = self.before(h, k, stride), self.before(wide, k, stride)
        padded = self.pad(x, k, top, left)
        taps = list(self.taps(x.shape, k, stride))
        wf, wb = (self.side_by_side(read(w), groups) for read in (self.forward_weight, self.backward_weight))

        y = np.zeros((n, -(-h // stride), -(-wide // stride), o), x.dtype)
        for u, v, at in taps:
            matrix = wf[:, 0, u, v] if depthwise else wf[:, :, u, v].T
            y = self.plus(y, padded[at] * matrix if depthwise else self.matmul(padded[at], matrix))

        def back(gy: Array) -> Array:
            gx, gw, gy = np.zeros_like(padded), np.zeros_like(wf), self.arriving(gy)
            rows = gy.reshape(-1, o)
            for u, v, at in taps:
                if depthwise:
                    gx[at] = self.plus(gx[at], gy * wb[:, 0, u, v])
                    gw[:, 0, u, v] = (padded[at] * gy).sum(axis=(0, 1, 2))
                else:
                    gx[at] = self.plus(gx[at], self.matmul(gy, wb[:, :, u, v]))
                    gw[:, :, u, v] = self.matmul(rows.T, padded[at].reshape(-1, c))
            self.grads[f"{layer}weight"] = self.weight_gradient(self.taken_apart(gw, groups)).reshape(shape)
            if bias is not None:
                self.grads[f"{layer}bias"] = self.bias_gradient(gy)
            return gx[:, top : top + h, left : left + wide]

        y = self.conv_output(y)
        return y if bias is None else y + self.added_bias(bias), back

    def added_bias(self, bias: Array) -> Array:
        return bias

    def side_by_side(self, w: Array, groups: int) -> Array:
        """Filters of groups as those of a dense convolution, whose other weights are 0."""
        if groups == 1:
            return w
        dense = np.zeros((len(w), w.shape[1] * groups, *w.shape[2:]), w.dtype)
        for rows, columns in self.groups_of(dense, groups):
            dense[rows, columns] = w[rows]
        return dense

    def taken_apart(self, dense: Array, groups: int) -> Array:
        return dense if groups == 1 else np.concatenate([dense[at] for at in self.groups_of(dense, groups)])

    def groups_of(self, dense: Array, groups: int) -> list[tuple[slice, slice]]:
        tall, c = len(dense) // groups, dense.shape[1] // groups
        return [(slice(g * tall, (g + 1) * tall), self.channels_of(g, c, groups)) for g in range(groups)]

    def channels_of(self, group: int, c: int, groups: int) -> slice:
        """The input channels a group reads."""
        return slice(group * c, (group + 1) * c)

    def deviation(self, v: Array) -> Array:
        return np.sqrt((v * v).sum(axis=1, keepdims=True) / (v.shape[1] - 1))

    def standardised_conv(self, x: Array, stride: int) -> Result:
        w = self.p["weight"]
        rows = w.reshape(len(w), -1)
        v = rows - rows.mean(axis=1, keepdims=True)
        deviation = self.deviation(v)
        d = deviation + w.dtype.type(1e-5)
        y, back_conv = self.conv("", x, stride, weight=(v / d).reshape(w.shape), groups=self.attrs["groups"])

        def back(gy: Array) -> Array:
            gx = back_conv(gy)
            self.grads["weight"] = self.standardised_back(self.grads["weight"].reshape(rows.shape), v, d, deviation)
            self.grads["weight"] = self.grads["weight"].reshape(w.shape)
            return gx

        return y, back

    def standardised_back(self, g: Array, v: Array, d: Array, deviation: Array) -> Array:
        along = (g * v).sum(axis=1, keepdims=True)
        gv = g / d - v * along / (d * d * deviation * (v.shape[1] - 1))
        return gv - gv.mean(axis=1, keepdims=True)

    def patches(self, size: int) -> Array:
        """One row per patch of a line: 1 where it lies."""
        r = self.attrs["patch"]
        count = -(-size // r)
        of = (np.arange(size) + (count * r - size) // 2) // r
        return (of[None] == np.arange(count)[:, None]).astype(self.x.dtype)

    def filter_scale(self, stride: int) -> int:
        """What the means of gy are divided by."""
        return stride * stride

    def filtered_conv(self, x: Array, stride: int) -> Result:
        y, _ = self.conv("", x, stride)
        w = self.p["weight"]
        down, across = (self.patches(size) for size in y.shape[1:3])
        above, beside = (np.repeat(p, stride, 1)[:, :n] for p, n in ((down, x.shape[1]), (across, x.shape[2])))
        sums = np.einsum("nhwc,ph,qw->npqc", x, above, beside)
        if "weight" in self.parameters:
            self.kept["x_sums"] = self.outward(sums)

        def back(gy: Array) -> Array:
            areas = np.outer(down.sum(1), across.sum(1))[None, :, :, None]
            means = np.einsum("nhwo,ph,qw->npqo", gy, down, across) / areas / self.filter_scale(stride)
            self.grads["weight"] = np.broadcast_to(
                np.einsum("npqo,npqc->oc", means, sums)[:, :, None, None], w.shape
            ).astype(x.dtype)
            return np.einsum("npqo,oc,ph,qw->nhwc", means, w.sum((2, 3)), above, beside)

        return y, back

    # Norms

    def group_axes(self, x: Array) -> Array:
        """(N, H, W, C) as (N, groups, values)."""
        n, groups = len(x), self.attrs["groups"]
        return x.reshape(n, -1, groups, x.shape[3] // groups).transpose(0, 2, 1, 3).reshape(n, groups, -1)

    def from_groups(self, rows: Array, shape: tuple[int, ...]) -> Array:
        n, groups = rows.shape[:2]
        return rows.reshape(n, groups, -1, shape[3] // groups).transpose(0, 2, 1, 3).reshape(shape)

    def group_norm(self, x: Array) -> Result:
        rows = self.group_axes(x)
        mean = rows.mean(axis=2, keepdims=True)
        inv_std = self.inv_std(self.group_variance(rows, mean))
        normal = (rows - mean) * inv_std
        x_hat, gamma = self.from_groups(normal, x.shape), self.p["weight"]

        def back(gy: Array) -> Array:
            self.grads |= {"weight": (gy * x_hat).sum(axis=(0, 1, 2)), "bias": gy.sum(axis=(0, 1, 2))}
            a = self.group_axes(gy * self.scale_of(gamma))
            level, along = a.mean(axis=2, keepdims=True), (a * normal).mean(axis=2, keepdims=True)
            return self.from_groups(inv_std * (a - level - normal * along), x.shape)

        return self.scale_of(gamma) * x_hat + self.p["bias"], back

    def group_variance(self, rows: Array, mean: Array) -> Array:
        return np.square(rows - mean).mean(axis=2, keepdims=True)

    def inv_std(self, variance: Array) -> Array:
        return 1 / np.sqrt(variance + self.attrs["eps"])

    def scale_of(self, gamma: Array) -> Array:
        return gamma

    def statistics(self, layer: str, x: Array) -> tuple[Array, Array]:
        """Mean and biased variance to normalise by."""
        mean = x.mean(axis=(0, 1, 2))
        return mean, self.variance(x, mean)

    def variance(self, x: Array, mean: Array) -> Array:
        return np.square(x - mean).mean(axis=(0, 1, 2))

    def unbiased(self, variance: Array, m: int) -> Array:
        return variance * (m / (m - 1))

    def moved(self, running: Array, batch: Array) -> Array:
        momentum = self.attrs["momentum"]
        return (1 - momentum) * running + momentum * batch

    def move_statistics(self, layer: str, x: Array) -> None:
        mean = x.mean(axis=(0, 1, 2))
        variance = self.unbiased(np.square(x - mean).mean(axis=(0, 1, 2)), x[..., 0].size)
        for name, batch in (("running_mean", mean), ("running_var", variance)):
            self.after[layer + name] = self.moved(self.p[layer + name], batch)

    def batch_norm(self, layer: str, x: Array) -> Result:
        gamma, beta = self.p[f"{layer}weight"], self.p[f"{layer}bias"]
        mean, variance = self.statistics(layer, x)
        inv_std = self.inv_std(variance)
        x_hat = (x - mean) * inv_std
        self.move_statistics(layer, x)
        return self.scale_of(gamma) * x_hat + beta, lambda gy: self.batch_norm_back(layer, gy, x_hat, inv_std)

    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        m = gy[..., 0].size
        along, total = (gy * x_hat).sum(axis=(0, 1, 2)), gy.sum(axis=(0, 1, 2))
        self.grads |= {f"{layer}weight": along, f"{layer}bias": total}
        return self.scale_of(self.p[f"{layer}weight"]) * inv_std * (gy - total / m - x_hat * (along / m))

    def frozen_norm(self, layer: str, x: Array) -> Result:
        scale = self.scale_of(self.p[f"{layer}weight"]) * self.inv_std(self.p[f"{layer}running_var"])

        def back(gy: Array) -> Array:
            self.grads[f"{layer}bias"] = gy.sum(axis=(0, 1, 2))
            return gy * scale

        return (x - self.p[f"{layer}running_mean"]) * scale + self.p[f"{layer}bias"], back

    # Activations: forward and slope

    def relu(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def relu6(self, x: Array) -> Array:
        return np.clip(x, 0, 6)

    def hard_sigmoid(self, x: Array) -> Array:
        return np.clip(x + 3, 0, 6) / 6

    def hard_swish(self, x: Array) -> Array:
        return x * np.clip(x + 3, 0, 6) / 6

    def sigmoid(self, x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    def silu(self, x: Array) -> Array:
        return x / (1 + np.exp(-x))

    def sigmoid_slope(self, x: Array) -> Array:
        y = self.sigmoid(x)
        return y * (1 - y)

    def silu_slope(self, x: Array) -> Array:
        s = 1 / (1 + np.exp(-x))
        return s * (1 + x * (1 - s))

    def relu_slope(self, x: Array) -> Array:
        return x > 0

    def relu6_slope(self, x: Array) -> Array:
        return (x > 0) & (x < 6)

    def hard_sigmoid_slope(self, x: Array) -> Array:
        return ((x > -3) & (x < 3)) * x.dtype.type(1 / 6)

    def hard_swish_slope(self, x: Array) -> Array:
        return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))

    def sign(self, x: Array) -> Array:
        return x >= 0

    def act(self, layer: str, x: Array, kind: str, rule: str = "") -> Result:
        rule = rule or BASELINE.get(kind, "exact")
        self.keep_codes(layer, x, kind, rule)
        slope = self.slope(x, kind, rule).astype(x.dtype)
        return getattr(self, kind)(x), lambda gy: gy * slope

    def slope(self, x: Array, kind: str, rule: str) -> Array:
        if rule == "output-sign":
            return ~np.signbit(self.hard_swish(x))
        if rule in ("sign", "few1"):
            return self.sign(x)
        if rule.startswith("few"):
            borders, levels = FEW_LEVELS[rule]
            return np.array(levels)[np.digitize(x, borders)]
        return getattr(self, f"{kind}_slope")(x)

    def keep_codes(self, layer: str, x: Array, kind: str, rule: str) -> None:
        if layer.endswith("expand_act.") and self.method == "mobiletl-recompute":
            return
        if self.op == "network" and layer not in self.keeping:
            return
        if rule == "codes":
            self.kept[f"{layer}codes"] = self.pack((x > 0) + (x >= 6).astype(np.uint8), 2)
        elif rule == "sign":
            self.kept[f"{layer}mask"] = self.pack(self.sign(x))
        elif rule == "output" and kind == "hard_swish":
            self.kept[f"{layer}mask"] = self.pack(x >= -1.5)
        elif (rule == "band" or kind in ("relu", "hard_sigmoid")) and rule != "output":
            self.kept[f"{layer}mask"] = self.pack(getattr(self, f"{kind}_slope")(x) != 0)

    # The rest

    def pool(self, x: Array) -> Result:
        area = x.shape[1] * x.shape[2]
        return x.mean(axis=(1, 2)), lambda gy: np.broadcast_to(gy[:, None, None] / area, x.shape)

    def squeeze_excite(self, layer: str, x: Array) -> Result:
        pooled, back_pool = self.pool(x)
        h, back1 = self.conv(f"{layer}fc1.", pooled[:, None, None])
        h, back2 = self.act(f"{layer}act.", h, self.squeezed())
        h, back3 = self.conv(f"{layer}fc2.", h)
        gate, back4 = self.act(f"{layer}gate.", h, "hard_sigmoid")

        def back(gy: Array) -> Array:
            to_gate = self.gate_gradient(gy, x)
            return gy * gate + back_pool(back1(back2(back3(back4(to_gate))))[:, 0, 0])

        return x * gate, back

    tuned: frozenset[str] | set[str] = frozenset()  # parameters of a network
    keeping: frozenset[str] | set[str] = frozenset()  # activations of a network that keep something
    logits = np.zeros(())

    def squeezed(self) -> str:
        """The activation between the two layers of squeeze-and-excite."""
        return "relu"

    def gate_gradient(self, gy: Array, x: Array) -> Array:
        return (gy * x).sum(axis=(1, 2), keepdims=True)

    def cross_entropy(self, z: Array, labels: Array) -> Result:
        shifted = z - z.max(axis=1, keepdims=True)
        total = np.exp(shifted).sum(axis=1, keepdims=True)
        p, at = np.exp(shifted) / total, (np.arange(len(z)), labels)
        loss = (np.log(total[:, 0]) - shifted[at]).mean()

        def back(gy: Array) -> Array:
            gz = p.copy()
            gz[at] -= 1
            return gz * gy / self.samples(len(z))

        return np.array(loss, z.dtype), back

    def samples(self, count: int) -> int:
        """What the gradient of the loss is divided by."""
        return count

    def add(self, x: Array, other: Array) -> Result:
        def back(gy: Array) -> Array:
            self.g_other = gy
            return gy

        return x + other, back

    def multiply(self, x: Array, gate: Array) -> Result:
        def back(gy: Array) -> Array:
            self.g_other = self.gate_gradient(gy, x)
            return gy * gate

        return x * gate, back

    def avg_pool(self, x: Array) -> Result:
        s = self.attrs["window"]
        high, wide, (n, *_, c) = x.shape[1] // s, x.shape[2] // s, x.shape
        y = x[:, : high * s, : wide * s].reshape(n, high, s, wide, s, c).mean(axis=(2, 4))

        def back(gy: Array) -> Array:
            gx = np.zeros_like(x)
            gx[:, : high * s, : wide * s] = gy.repeat(s, axis=1).repeat(s, axis=2) / self.area(s)
            return gx

        return y, back

    def area(self, s: int) -> int:
        """What an average pool's gradient is divided by."""
        return s * s

    def places(self, source: int, target: int) -> Array:
        """Where each line of an enlarged map lies among those it is made from."""
        return np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)

    def shares(self, source: int, target: int) -> Array:
        """What each line of the target takes of each of the source."""
        at, shares = self.places(source, target), np.zeros((target, source), self.x.dtype)
        for i, t in enumerate(at):
            low = int(t)
            shares[i, low] += 1 - (t - low)
            shares[i, min(low + 1, source - 1)] += t - low
        return shares

    def bilinear_up(self, x: Array) -> Result:
        rows = self.shares(x.shape[1], self.attrs["out_height"])
        columns = self.shares(x.shape[2], self.attrs["out_width"])
        return (
            np.einsum("ih,nhwc,jw->nijc", rows, x, columns),
            lambda gy: np.einsum("ih,nijc,jw->nhwc", rows, gy, columns),
        )

    def pooled_head(self, x: Array) -> Result:
        pooled, back_pool = self.pool(x)
        y, back = self.conv("", pooled)
        return y, lambda gy: back_pool(back(gy))

    def residual(self, x: Array) -> Result:
        kind = self.attrs["activation"]
        h, back1 = self.conv("conv1.", x)
        h, back2 = self.batch_norm("norm1.", h)
        h, back3 = self.act("act1.", h, kind)
        h, back4 = self.conv("conv2.", h)
        h, back5 = self.batch_norm("norm2.", h)
        y, back6 = self.act("act2.", h + x, kind)

        def back(gy: Array) -> Array:
            of_sum = back6(gy)
            return self.residual_gradient(back1(back2(back3(back4(back5(of_sum))))), of_sum)

        return y, back

    def inner_norm(self, layer: str, x: Array) -> Result:
        moves = self.method in ("ft", "ft-all") and self.alive
        return self.batch_norm(layer, x) if moves else self.frozen_norm(layer, x)

    def outer_norm(self, layer: str, x: Array) -> Result:
        """The norm after a projection."""
        return self.batch_norm(layer, x) if self.alive else self.frozen_norm(layer, x)

    alive = True  # whether what runs is tuned

    def expands(self) -> bool:
        return self.attrs.get("expand", True)

    def irb(self, x: Array) -> Result:
        return self.block("", x, self.attrs["stride"], self.attrs.get("se_channels", 0))

    def inner_rule(self, kind: str) -> str:
        """Of a block's activations; the usual one where it is empty."""
        if self.method in ("ft", "ft-all") or not self.alive:
            return ""
        if self.method == "mobiletl":
            return "" if kind == "relu" else "sign"
        return "output"

    def block(self, at: str, x: Array, stride: int, se: int) -> Result:
        kind, backs, h = self.attrs["activation"], [], x
        rule = self.inner_rule(kind)

        def then(result: Result) -> Array:
            backs.append(result[1])
            return result[0]

        if self.expands():
            h = then(self.conv(f"{at}expand.", h))
            h = then(self.inner_norm(f"{at}expand_norm.", h))
            h = then(self.act(f"{at}expand_act.", h, kind, rule))
        h = then(self.conv(f"{at}depthwise.", h, stride, depthwise=True))
        h = then(self.inner_norm(f"{at}depthwise_norm.", h))
        h = then(self.act(f"{at}depthwise_act.", h, kind, rule))
        if se:
            h = then(self.squeeze_excite(f"{at}se.", h))
        h = then(self.conv(f"{at}project.", h))
        h = then(self.outer_norm(f"{at}project_norm.", h))

        def back(gy: Array) -> Array:
            gx = gy
            for step in reversed(backs):
                gx = step(gx)
            return self.residual_gradient(gx, gy) if h.shape == x.shape else gx

        return h + x if h.shape == x.shape else h, back

    def network(self, x: Array) -> Result:
        """Loss of a whole network; all layers are walked back, and `trains` says what is handed in."""
        a, kind, backs, h = self.attrs, self.attrs["activation"], [], x
        blocks = list(zip(*([int(n) for n in a[k].split(",")] for k in ("strides", "se")), strict=True))
        tuned = [f"block{n + 1}." for n in range(len(blocks) - a["tuned"], len(blocks))] + ["head", "classifier."]
        if self.method == "ft-all":
            tuned = ["stem", *(f"block{n + 1}." for n in range(len(blocks))), *tuned[-2:]]
        self.tuned = {name for name in self.p if name.startswith(tuple(tuned))}
        acts = ("expand_act.", "depthwise_act.", "se.act.", "se.gate.")
        self.keeping = {"head_act.", "stem_act."} & {f"{part}_act." for part in tuned}
        self.keeping |= {part + act for part in tuned for act in acts}

        def then(result: Result) -> Array:
            backs.append(result[1])
            return result[0]

        self.alive = "stem" in tuned
        h = then(self.conv("stem.", h, 2))
        h = then(self.outer_norm("stem_norm.", h))
        h = then(self.act("stem_act.", h, kind))
        for n, (stride, se) in enumerate(blocks):
            self.alive = f"block{n + 1}." in tuned
            h = then(self.block(f"block{n + 1}.", h, stride, se))
        self.alive = True
        rule = self.inner_rule(kind) if self.method == "mobiletl" else ""
        if self.method in ("mobiletl-exact", "mobiletl-recompute"):
            rule = EXACT_ABOVE[kind]
        h = then(self.conv("head.", h))
        h = then(self.batch_norm("head_norm.", h))
        h = then(self.act("head_act.", h, kind, rule))
        h = then(self.pool(h))
        self.logits = then(self.conv("classifier.", h))
        loss = then(self.cross_entropy(self.logits, self.labels))

        def back(gy: Array) -> Array:
            for step in reversed(backs):
                gy = step(gy)
            return gy

        return loss, back

    def residual_gradient(self, gx: Array, gy: Array) -> Array:
        return gx + gy


def mutant(mistake: str) -> Callable[[type[Correct]], type[Correct]]:
    def register(cls: type[Correct]) -> type[Correct]:
        assert mistake not in MUTANTS
        MUTANTS[mistake] = cls
        return cls

    return register


# Masks and slopes


@mutant("mask bits flipped")
class FlippedMask(Correct):
    def sign(self, x: Array) -> Array:
        return x < 0


@mutant("one mask bit in a thousand wrong, in what is kept only")
class OneBitWrong(Correct):
    def packbits(self, flat: Array) -> Array:
        packed = super().packbits(flat)
        packed.reshape(-1)[::125] ^= 1
        return packed


@mutant("masks packed high bit first")
class BigEndian(Correct):
    def packbits(self, flat: Array) -> Array:
        return np.packbits(flat, axis=0, bitorder="big")


@mutant("masks packed along channels")
class PackedAlongChannels(Correct):
    def pack(self, codes: Array, bits: int = 1) -> Array:
        return super().pack(codes.reshape(-1, 1), bits).reshape(-1)


@mutant("masks packed in (n, c, h, w) order")
class PackedPlanes(Correct):
    def pack(self, codes: Array, bits: int = 1) -> Array:
        return super().pack(np.moveaxis(codes, -1, 1).reshape(-1, 1), bits).reshape(-1)


@mutant("packed sample by sample, each padded to whole bytes")
class PaddedSamples(Correct):
    def pack(self, codes: Array, bits: int = 1) -> Array:
        return np.concatenate([super(PaddedSamples, self).pack(sample, bits) for sample in codes])


@mutant("relu6 codes 0, 1, 3: one bit for each clip")
class TwoFlags(Correct):
    def pack(self, codes: Array, bits: int = 1) -> Array:
        return super().pack(np.where(codes == 2, 3, codes), bits)


@mutant("sign rule x > 0 instead of x >= 0")
class StrictSign(Correct):
    def sign(self, x: Array) -> Array:
        return x > 0


@mutant("exact slope where the sign rule is asked for")
class ExactForSign(Correct):
    def slope(self, x: Array, kind: str, rule: str) -> Array:
        return super().slope(x, kind, BASELINE.get(kind, "exact") if rule == "sign" else rule)


@mutant("sign rule where the exact slope is asked for")
class SignForExact(Correct):
    def slope(self, x: Array, kind: str, rule: str) -> Array:
        signed = kind in ("relu6", "hard_swish") and rule in ("exact", "codes", "band", "output")
        return super().slope(x, kind, "sign" if signed else rule)


@mutant("relu6 without its upper clip, forward")
class UnclippedForward(Correct):
    def relu6(self, x: Array) -> Array:
        return np.maximum(x, 0)


@mutant("relu6 without its upper clip, backward")
class UnclippedBackward(Correct):
    def relu6_slope(self, x: Array) -> Array:
        return x > 0


@mutant("relu6 slope 1 at 6")
class SlopeAtSix(Correct):
    def relu6_slope(self, x: Array) -> Array:
        return (x > 0) & (x <= 6)


@mutant("relu slope 1 at 0")
class SlopeAtZero(Correct):
    def relu_slope(self, x: Array) -> Array:
        return x >= 0


@mutant("hard-swish slope (2x + 3) / 6 held between 0 and 1: no overshoot, no jump")
class NoJump(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.clip((2 * x + 3) / 6, 0, 1)


@mutant("hard-swish slope (2x + 3) / 6 at the kinks too")
class SlopeAtKinks(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.where(x < -3, 0, np.where(x > 3, 1, (2 * x + 3) / 6))


@mutant("hard-swish slope (2x + 3) / 6 at -3 too")
class SlopeAtMinusThree(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.where(x < -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6))


@mutant("hard-swish slope (2x + 3) / 6 at 3 too")
class SlopeAtThree(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.where(x <= -3, 0, np.where(x > 3, 1, (2 * x + 3) / 6))


@mutant("the sign rule's mask is x >= -3")
class MaskFromMinusThree(Correct):
    def sign(self, x: Array) -> Array:
        return x >= -3


@mutant("the sign rule's mask is x > -3")
class MaskAboveMinusThree(Correct):
    def sign(self, x: Array) -> Array:
        return x > -3


@mutant("the sign rule's mask is x >= -1.5")
class MaskFromLowest(Correct):
    def sign(self, x: Array) -> Array:
        return x >= -1.5


@mutant("the sign rule's mask is x >= 3")
class MaskFromThree(Correct):
    def sign(self, x: Array) -> Array:
        return x >= 3


@mutant("the sign rule's mask is y >= 0")
class MaskOfOutput(Correct):
    def sign(self, x: Array) -> Array:
        return self.hard_swish(x) >= 0


@mutant("hard-swish slope x / 3 + 1 / 3")
class WrongSlope(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 2) / 6))


@mutant("hard-swish takes a rounded 1/6 (a float16 constant)")
class RoundedSixth(Correct):
    def hard_swish(self, x: Array) -> Array:
        return x * np.clip(x + 3, 0, 6) * x.dtype.type(np.float16(1 / 6))


@mutant("hard-swish slope takes a rounded 1/6 (a float16 constant)")
class RoundedSixthInSlope(Correct):
    def hard_swish_slope(self, x: Array) -> Array:
        return np.where((x > -3) & (x < 3), (2 * x + 3) * x.dtype.type(np.float16(1 / 6)), x >= 3)


@mutant("0.1667 for 1/6")
class DecimalSixth(Correct):
    def hard_swish(self, x: Array) -> Array:
        return x * np.clip(x + 3, 0, 6) * x.dtype.type(0.1667)

    def hard_sigmoid(self, x: Array) -> Array:
        return np.clip(x + 3, 0, 6) * x.dtype.type(0.1667)


@mutant("hard-swish slope from its output without the bit: rising everywhere")
class NoBit(Correct):
    def slope(self, x: Array, kind: str, rule: str) -> Array:
        if kind != "hard_swish" or rule != "output":
            return super().slope(x, kind, rule)
        return np.where((x > -3) & (x < 3), np.abs(2 * x + 3) / 6, self.hard_swish_slope(x))


@mutant("gradient passed straight through activations")
class StraightThrough(Correct):
    def slope(self, x: Array, kind: str, rule: str) -> Array:
        return np.ones(x.shape) if rule == "sign" else super().slope(x, kind, rule)


@mutant("swish instead of hard-swish")
class Swish(Correct):
    def hard_swish(self, x: Array) -> Array:
        return x / (1 + np.exp(-x))


@mutant("hard-sigmoid slope 1/3")
class SlopeOfThird(Correct):
    def hard_sigmoid_slope(self, x: Array) -> Array:
        return 2 * super().hard_sigmoid_slope(x)


@mutant("hard-sigmoid slope 1/6 at the kinks too")
class HardSigmoidKinks(Correct):
    def hard_sigmoid_slope(self, x: Array) -> Array:
        return ((x >= -3) & (x <= 3)) * x.dtype.type(1 / 6)


@mutant("hard-sigmoid 0.2 x + 0.5, as Keras once had it")
class KerasHardSigmoid(Correct):
    def hard_sigmoid(self, x: Array) -> Array:
        return np.clip(0.2 * x + 0.5, 0, 1)


# Convolutions


@mutant("padding off by one")
class PaddingOffByOne(Correct):
    def before(self, size: int, kernel: int, stride: int) -> int:
        return kernel // 2 - (kernel > 1)


@mutant("stride 2 starts one later on even sizes (TensorFlow's SAME)")
class SamePadding(Correct):
    def before(self, size: int, kernel: int, stride: int) -> int:
        return max((-(-size // stride) - 1) * stride + kernel - size, 0) // 2


@mutant("weight gradient with its taps transposed")
class TransposedTaps(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return taps.swapaxes(2, 3)


@mutant("weight gradient with its taps reversed (correlation for convolution)")
class ReversedTaps(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return taps[:, :, ::-1, ::-1]


@mutant("weight gradient averaged over the batch")
class AveragedWeight(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return taps / len(self.x)


@mutant("bias gradient averaged over the batch")
class AveragedBias(Correct):
    def bias_gradient(self, gy: Array) -> Array:
        return super().bias_gradient(gy) / len(gy)


@mutant("the last row of taps forgotten")
class LostTaps(Correct):
    def taps(self, shape: tuple[int, ...], kernel: int, stride: int) -> Iterator[tuple[int, int, Any]]:
        every = list(super().taps(shape, kernel, stride))
        return iter(every[: -kernel or None] if kernel > 1 else every)


@mutant("maps read as NCHW where they are NHWC, and the other way round")
class MixedLayout(Correct):
    def inward(self, a: Array) -> Array:
        return a.reshape(np.moveaxis(a, 1, -1).shape) if self.layout == "nchw" and a.ndim == 4 else a

    def outward(self, a: Array) -> Array:
        if a.ndim != 4:
            return a
        n, h, w, c = a.shape
        if self.layout == "nchw":
            return a.reshape(n, c, h, w)
        return np.ascontiguousarray(np.moveaxis(a, -1, 1)).reshape(a.shape)


@mutant("sums accumulated in bfloat16")
class Bfloat16Sums(Correct):
    def plus(self, total: Array, term: Array) -> Array:
        return bfloat16(total + term)

    def matmul(self, a: Array, b: Array) -> Array:
        total = np.zeros((*a.shape[:-1], b.shape[1]), a.dtype)
        for i in range(len(b)):
            total = bfloat16(total + a[..., i : i + 1] * b[i])
        return total


# Norms


@mutant("batch statistics instead of frozen ones")
class BatchForFrozen(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        self.attrs = {"momentum": 0.1, **self.attrs}
        after = dict(self.after)
        result = self.batch_norm(layer, x)
        self.after = after
        return result


@mutant("frozen statistics instead of the batch's")
class FrozenForBatch(Correct):
    def batch_norm(self, layer: str, x: Array) -> Result:
        self.move_statistics(layer, x)
        y, back_frozen = self.frozen_norm(layer, x)
        x_hat = (y - self.p[f"{layer}bias"]) / self.p[f"{layer}weight"]

        def back(gy: Array) -> Array:
            self.grads[f"{layer}weight"] = (gy * x_hat).sum(axis=(0, 1, 2))
            return back_frozen(gy)

        return y, back


@mutant("batch statistics taken as constants in backward")
class DetachedStatistics(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        super().batch_norm_back(layer, gy, x_hat, inv_std)
        return gy * (self.p[f"{layer}weight"] * inv_std)


@mutant("norm's gradient of x without its x_hat term")
class NoXHatTerm(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        super().batch_norm_back(layer, gy, x_hat, inv_std)
        return self.p[f"{layer}weight"] * inv_std * (gy - gy.mean(axis=(0, 1, 2)))


@mutant("sums in the norm's gradient of x not divided by M")
class SumsNotDivided(Correct):
    def divisor(self, m: int) -> int:
        return 1

    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        super().batch_norm_back(layer, gy, x_hat, inv_std)
        along, total = (gy * x_hat).sum(axis=(0, 1, 2)), gy.sum(axis=(0, 1, 2))
        centred = gy - (total + x_hat * along) / self.divisor(gy[..., 0].size)
        return self.p[f"{layer}weight"] * inv_std * centred


@mutant("sums in the norm's gradient of x divided by M - 1")
class SumsByOneLess(SumsNotDivided):
    def divisor(self, m: int) -> int:
        return m - 1


@mutant("scale's gradient from x - mean")
class ScaleFromCentred(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        gx = super().batch_norm_back(layer, gy, x_hat, inv_std)
        self.grads[f"{layer}weight"] = (gy * x_hat / inv_std).sum(axis=(0, 1, 2))
        return gx


@mutant("scale's gradient from x")
class ScaleFromX(Correct):
    def batch_norm(self, layer: str, x: Array) -> Result:
        y, of_norm = super().batch_norm(layer, x)

        def back(gy: Array) -> Array:
            gx = of_norm(gy)
            self.grads[f"{layer}weight"] = (gy * x).sum(axis=(0, 1, 2))
            return gx

        return y, back


@mutant("standard deviation kept and used for its inverse")
class DeviationKept(Correct):
    def batch_norm_back(self, layer: str, gy: Array, x_hat: Array, inv_std: Array) -> Array:
        gx = super().batch_norm_back(layer, gy, x_hat, inv_std) / (inv_std * inv_std)
        self.kept[f"{layer}inv_std"] = 1 / inv_std
        return gx


@mutant("frozen norms pass their gradient on unscaled")
class UnscaledGradient(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        y, of_norm = super().frozen_norm(layer, x)

        def back(gy: Array) -> Array:
            of_norm(gy)
            return gy

        return y, back


@mutant("frozen norms' gradient of x without 1 / deviation")
class GammaAlone(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        y, of_norm = super().frozen_norm(layer, x)
        return y, lambda gy: of_norm(gy) / self.inv_std(self.p[f"{layer}running_var"])


@mutant("running variance biased")
class BiasedRunning(Correct):
    def unbiased(self, variance: Array, m: int) -> Array:
        return variance


@mutant("normalised by the unbiased variance")
class UnbiasedVariance(Correct):
    def variance(self, x: Array, mean: Array) -> Array:
        return super().variance(x, mean) * (x[..., 0].size / (x[..., 0].size - 1))


@mutant("momentum the wrong way round")
class ReversedMomentum(Correct):
    def moved(self, running: Array, batch: Array) -> Array:
        momentum = self.attrs["momentum"]
        return momentum * running + (1 - momentum) * batch


@mutant("eps outside the square root")
class EpsOutside(Correct):
    def inv_std(self, variance: Array) -> Array:
        return 1 / (np.sqrt(variance) + self.attrs["eps"])


@mutant("eps left out")
class NoEps(Correct):
    def inv_std(self, variance: Array) -> Array:
        return 1 / np.sqrt(variance)


@mutant("eps of the other preset")
class OtherEps(Correct):
    def inv_std(self, variance: Array) -> Array:
        return 1 / np.sqrt(variance + (1e-5 if self.attrs["eps"] > 1e-4 else 1e-3))


@mutant("gradient of a frozen scale returned")
class ScaleGradient(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        y, back = super().frozen_norm(layer, x)
        x_hat = (x - self.p[f"{layer}running_mean"]) * self.inv_std(self.p[f"{layer}running_var"])

        def with_scale(gy: Array) -> Array:
            self.grads[f"{layer}weight"] = (gy * x_hat).sum(axis=(0, 1, 2))
            return back(gy)

        return y, with_scale

    def trains(self, name: str) -> bool:
        return super().trains(name) or ((self.op == "frozen_norm" or "_norm." in name) and name.endswith("weight"))


@mutant("running statistics updated although frozen")
class FrozenMoves(Correct):
    def frozen_norm(self, layer: str, x: Array) -> Result:
        self.attrs = {"momentum": 0.1, **self.attrs}
        self.move_statistics(layer, x)
        return super().frozen_norm(layer, x)


@mutant("running statistics updated twice where the block runs again")
class MovedTwice(Correct):
    def moved(self, running: Array, batch: Array) -> Array:
        once = super().moved(running, batch)
        return super().moved(once, batch) if self.method == "mobiletl-recompute" else once


@mutant("running statistics not updated")
class NotMoved(Correct):
    def moved(self, running: Array, batch: Array) -> Array:
        return running


@mutant("shift gradient of inner norms missing")
class NoShiftGradient(Correct):
    def trains(self, name: str) -> bool:
        return super().trains(name) and name not in [f"{norm}bias" for norm in INNER_NORMS]


# Blocks, squeeze-and-excite, loss


@mutant("residual gradient doubled")
class DoubledResidual(Correct):
    def residual_gradient(self, gx: Array, gy: Array) -> Array:
        return gx + 2 * gy


@mutant("residual gradient missing")
class NoResidual(Correct):
    def residual_gradient(self, gx: Array, gy: Array) -> Array:
        return gx


@mutant("gradient of the gate forgotten")
class NoGateGradient(Correct):
    def gate_gradient(self, gy: Array, x: Array) -> Array:
        return np.zeros_like(gy[:, :1, :1])


@mutant("gradient of the gate doubled")
class DoubledGateGradient(Correct):
    def gate_gradient(self, gy: Array, x: Array) -> Array:
        return 2 * super().gate_gradient(gy, x)


@mutant("squeeze-and-excite squeezes with the block's activation")
class OwnActivation(Correct):
    def squeezed(self) -> str:
        return self.attrs.get("activation", "hard_swish")


@mutant("no expansion where the channels already agree")
class SkippedExpansion(Correct):
    def expands(self) -> bool:
        return super().expands() and self.attrs.get("expanded_channels", 0) != self.attrs.get("in_channels")


@mutant("an activation after the projection")
class ActivatedProjection(Correct):
    def batch_norm(self, layer: str, x: Array) -> Result:
        y, back = super().batch_norm(layer, x)
        if layer != "project_norm.":
            return y, back
        z, back_act = super().act("late.", y, self.attrs["activation"])
        self.kept = {name: a for name, a in self.kept.items() if not name.startswith("late.")}
        return z, lambda gy: back(back_act(gy))


@mutant("squeeze-and-excite sums where it should average")
class SummingPool(Correct):
    def pool(self, x: Array) -> Result:
        return x.sum(axis=(1, 2)), lambda gy: np.broadcast_to(gy[:, None, None], x.shape)


@mutant("pool's gradient not divided by the area")
class UndividedPool(Correct):
    def pool(self, x: Array) -> Result:
        return super().pool(x)[0], lambda gy: np.broadcast_to(gy[:, None, None], x.shape)


@mutant("cross-entropy's gradient summed over the batch, its loss averaged")
class SummedLoss(Correct):
    def samples(self, count: int) -> int:
        return 1


# What is handed in


@mutant("NaN in the output")
class NanOutput(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        got["output"] = np.array(got["output"])
        got["output"][(-1,) * got["output"].ndim] = np.nan
        return got


@mutant("NaN in a gradient, everywhere")
class NanGradient(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {name: a * np.nan if name.startswith("grad_") else a for name, a in got.items()}


@mutant("input gradient not handed in")
class MissingTensor(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        got.pop("grad_input.x", None)
        return got


@mutant("rounded to float16, handed in as float32")
class RoundedToHalf(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {name: a.astype(np.float16).astype(a.dtype) if a.dtype.kind == "f" else a for name, a in got.items()}


@mutant("computed in bfloat16, handed in as float16")
class WrongHalf(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {
            name: bfloat16(a.astype(np.float32)).astype(np.float16) if a.dtype.kind == "f" else a
            for name, a in got.items()
        }


@mutant("weight gradients in (k, k, in, out) order")
class TapsFirst(Correct):
    def weight_gradient(self, taps: Array) -> Array:
        return np.ascontiguousarray(taps.transpose(2, 3, 1, 0))


@mutant("a vector of shape (1, C, 1, 1)")
class ExtraAxes(Correct):
    def answer(self) -> dict[str, Array]:
        got = super().answer()
        return {n: a[None, :, None, None] if a.ndim == 1 and n.startswith("grad_p") else a for n, a in got.items()}


@mutant("integers instead of floats")
class Integers(Correct):
    def answer(self) -> dict[str, Array]:
        return {name: a.astype(np.int32) if a.dtype.kind == "f" else a for name, a in super().answer().items()}


def bfloat16(a: Array) -> Array:
    """The upper 16 bits of float32, as the array's own dtype."""
    bits = np.ascontiguousarray(a, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    return bits.view(np.float32).astype(a.dtype).reshape(a.shape)
