# %% [markdown]
# # 7. Why does a gate of 576 numbers cost a map of 28,224 per image, and can it cost nothing?
#
# *Needs: [6, the block](06_the_block.py). Takes 20 minutes. Next: [8, adapt to new
# digits](08_adapt_to_new_digits.py).*
#
# Squeeze-and-excite (Hu et al. 2018, arXiv:1709.01507) multiplies every channel of a map by one
# number, the *gate*, which it computes from the map itself. In the block of tutorial 6 it added
# 945,360 bytes under either method, nearly a third of what MobileTL keeps. We look for them, and
# then send most of them away. (An image's wide map has 7x7x576 = 28,224 numbers. That a mask of the
# whole batch takes 28,224 bytes is no riddle: there are eight images in it, and eight bits in a byte.)

# %%
import minitl
import numpy as np

from course import check
from course.pieces import pack, pointwise, random_block, relu6

# %% [markdown]
# ## The gate
#
#     gate = hard_sigmoid(W2 relu(W1 mean(x) + b1) + b2)      (N, 1, 1, C)
#     y    = gate x                                           (N, H, W, C)
#
# The mean is over H and W, so `mean(x)` is (N, 1, 1, C). W1 squeezes C channels to a few (here 576
# to 144), W2 brings them back. Hard-sigmoid is relu6(t + 3) / 6: 0 below -3, 1 above 3, and a
# straight line of slope 1/6 in between. So both activations keep one bit per element, and exactly.


# %%
def gate_of(x, p, kept):
    """The gate (N, 1, 1, C) for a map x (N, H, W, C)."""
    h = x.mean(axis=(1, 2), keepdims=True)
    h = pointwise(h, p, "se.fc1", kept) + p["se.fc1.bias"]
    kept["se.act.mask"] = pack(h > 0)
    h = pointwise(np.maximum(h, 0), p, "se.fc2", kept) + p["se.fc2.bias"]
    kept["se.gate.mask"] = pack(abs(h) < 3)
    return relu6(h + 3) / 6


# %% [markdown]
# ## A product keeps both its factors
#
# The multiplication is where it becomes expensive. `y = gate x`, so by the first sentence of this
# course (*gx needs w, gw needs x*)
#
#     gx    = gate gy                            (N, H, W, C)  needs the gate
#     ggate = sum of gy x over H and W           (N, 1, 1, C)  needs the map
#
# ggate sums, because every position of a channel uses the same number. The gate is small; the map
# is not. By hand:


# %%
def scale(x, gate, kept):
    """y = gate x."""
    kept["se.scale.x"], kept["se.scale.gate"] = x, gate
    return gate * x


def scale_backward(kept, gy):
    """gx (N, H, W, C) and ggate (N, 1, 1, C)."""
    ggate = (gy * kept["se.scale.x"]).sum(axis=(1, 2), keepdims=True)
    return gy * kept["se.scale.gate"], ggate


def random_gate(rng, channels, squeezed):
    """Parameters of the two small convolutions, by name."""
    return {
        "se.fc1.weight": rng.standard_normal((squeezed, channels, 1, 1)) / np.sqrt(channels),
        "se.fc1.bias": rng.standard_normal(squeezed),
        "se.fc2.weight": 2 * rng.standard_normal((channels, squeezed, 1, 1)) / np.sqrt(squeezed),
        "se.fc2.bias": rng.standard_normal(channels),
    }


# %% [markdown]
# Is it right? A product is linear in each factor, so no differences are needed: `<gy, y>` must
# equal both `<gx, x>` and `<ggate, gate>` (tutorial 3's identity).

# %%
rng = np.random.default_rng(0)
x, gy = rng.standard_normal((2, 3, 7, 5, 11))
p, kept = random_gate(rng, channels=11, squeezed=4), {}
gate = gate_of(x, p, kept)
y = scale(x, gate, kept)
gx, ggate = scale_backward(kept, gy)
whole = (gy * y).sum()
assert np.allclose([(gx * x).sum(), (ggate * gate).sum()], whole, rtol=1e-12)
print(f"three sums agree within 1e-12; the gate runs from {gate.min():.2f} to {gate.max():.2f}")

# %% [markdown]
# Two paths lead from x to y: the direct one, and the one through the gate. So the gradient that
# leaves squeeze-and-excite at the bottom is again a sum of two: `gate gy`, and what comes back
# through hard-sigmoid, W2, ReLU, W1 and the mean. Writing that is exercise 7b.
#
# ## Weigh it
#
# The paper's block: 576 channels, squeezed to 144, 7x7, batch 8, float32. Six buffers; which are
# large?

# %%
full_x = rng.standard_normal((8, 7, 7, 576)).astype(np.float32)
full_p = {name: a.astype(np.float32) for name, a in random_gate(rng, 576, 144).items()}
kept = {}
_ = scale(full_x, gate_of(full_x, full_p, kept), kept)
for name, array in kept.items():
    print(f"{name:14} {array.nbytes:>9,}  {'x'.join(map(str, array.shape))}")
total = sum(array.nbytes for array in kept.values())
print(f"{'sum':14} {total:>9,}")
assert (total, kept["se.scale.x"].nbytes) == (945_360, 903_168)
assert round(total / 1e6, 2) == 0.95

# %% [markdown]
# 945,360 bytes, of which 903,168 are the map that ggate needs. (The paper's Figure 1 labels this
# bar 0.95 MB.) And it is what `minitl` keeps:

# %%
V3 = {"in_channels": 96, "expanded_channels": 576, "out_channels": 96, "kernel": 5}
V3 |= {"activation": "hard_swish", "se_channels": 144}


def ledger_of(method, **attrs):
    """What the paper's V3 block keeps, from shapes alone."""
    net = minitl.methods.get(method, blocks=1).apply(minitl.networks.irb(**(V3 | attrs)))
    return minitl.accounting.predict(net, batch=8, resolution=7)


rows = {f"{row.layer}.{row.tensor}": row.bytes for row in ledger_of("mobiletl").rows}
assert {name: count for name, count in rows.items() if name.startswith("se.")} == {
    name: array.nbytes for name, array in kept.items()
}

# %% [markdown]
# ## Look again: who has it already?
#
# Here are the rows from the second activation to the projection, under MobileTL:

# %%
for name in ("depthwise_act.mask", "se.scale.x", "se.scale.gate", "project.x"):
    print(f"{name:20} {rows[name]:>9,}")
assert rows["se.scale.x"] == rows["project.x"] == 903_168
assert rows["depthwise_act.mask"] == 7 * 7 * 576 == 28_224
assert rows["se.scale.gate"] == 18_432

# %% [markdown]
# `se.scale.x` is the map before the gate, `project.x` the map after it. Two maps of the same size
# which differ by one factor per channel: to keep both is to keep the same thing twice. Which of
# the two could we do without?
#
# Dividing `project.x` by the gate will not do: where the gate is 0, the map is gone. The other way
# round it works. The projection is linear, so the gate can go to the weights instead of the map:
#
#     (gate x) W^T = x (W gate)^T         per sample: W gate has the columns of W (O, C) scaled
#
# The gated map is never built, and nobody can ask to keep it.


# %%
def gated_conv(x, gate, w, kept):
    """y_n = x_n (W gate_n)^T: (N, H, W, C) to (N, H, W, O), for w (O, C, 1, 1)."""
    kept["x"], kept["gate"] = x, gate
    return np.stack([x[n] @ (w[:, :, 0, 0] * gate[n, 0, 0]).T for n in range(len(x))])


# %% [markdown]
# And the gradients? Let G_n = gy_n^T x_n, with gy_n (H W, O) and x_n (H W, C), so G_n is (O, C): it
# would be the weight gradient if there were no gate. All that is wanted comes from it:
#
#     gx_n    = gy_n (W gate_n)                   (H W, C)
#     gw      = sum over n of G_n gate_n          (O, C)
#     ggate_n = sum over o of W G_n               (C,)
#
# The last line deserves a second look. ggate needed the map x, and W G_n has x in it, summed over
# all positions already.


# %%
def gated_conv_backward(kept, gy, w):
    """gx, ggate and gw, sample by sample."""
    x, gate, matrix = kept["x"], kept["gate"], w[:, :, 0, 0]
    gx, ggate, gw = np.empty_like(x), np.empty_like(gate), np.zeros_like(w)
    for n in range(len(x)):
        g = np.einsum("hwo,hwc->oc", gy[n], x[n])  # kept: x
        gx[n] = gy[n] @ (matrix * gate[n, 0, 0])  # kept: gate
        ggate[n, 0, 0] = (matrix * g).sum(axis=0)
        gw[:, :, 0, 0] += g * gate[n, 0, 0]  # kept: gate
    return gx, ggate, gw


w = random_block(rng, channels=6, expanded=11, outputs=6, kernel=3)["project.weight"]
gy = rng.standard_normal((3, 7, 5, 6))
kept = {}
y = gated_conv(x, gate, w, kept)
results = dict(zip(("x", "gate", "w"), gated_conv_backward(kept, gy, w), strict=True))
assert np.allclose(y, (gate * x) @ w[:, :, 0, 0].T, rtol=1e-12)
for name, value in {"x": x, "gate": gate, "w": w}.items():
    assert np.isclose((results[name] * value).sum(), (gy * y).sum(), rtol=1e-12)
print("same output as multiplying the map; three gradients right within 1e-12")

# %% [markdown]
# `minitl` has this as one operation. (The first time, the next cell takes some seconds: kernels are
# compiled.)

# %%
op, needs = minitl.ops.gated_conv, (True, True, True)
theirs, saved = op.forward(x, gate, w, needs=needs)
gradients = op.backward(saved, gy, needs=needs, params=(w,))
assert np.allclose(theirs, y, rtol=1e-12)
for mine, minitls in zip(results.values(), gradients, strict=True):
    assert np.allclose(mine, minitls, rtol=1e-11)
assert sorted(saved.buffers) == sorted(kept)
print("minitl.ops.gated_conv: equal, and keeps", ", ".join(sorted(saved.buffers)))

# %% [markdown]
# ## What it costs now
#
# `mobiletl-exact` uses it. In the figure, count the squares of the full size between the second
# activation and the projection: each is a map of 903,168 bytes, and the hatched one belongs to
# three operations at once. (The labels add what hangs there too: the gate, 18,432 bytes, and the
# one-bit rule's 28,224 bytes.)

# %%
from course.figures import BLUE, GREEN, YELLOW, figure

PLACES = {"depthwise_act": YELLOW, "se (gate)": GREEN, "se (multiply)": GREEN, "project": BLUE}


def place_of(row):
    """Where in the picture a row hangs, or None."""
    if row.layer.startswith("se."):
        return "se (multiply)" if row.op == "scale" else "se (gate)"
    return row.layer if row.layer in PLACES else None


picture, panels = figure(columns=2, height=1.8)
picture.suptitle("Bytes kept from the second activation to the projection")
for axes, method in zip(panels, ("mobiletl", "mobiletl-exact"), strict=True):
    for place, (name, colour) in enumerate(PLACES.items()):
        rows_here = [row for row in ledger_of(method).rows if place_of(row) == name]
        size = sum(row.bytes for row in rows_here)
        side = 0.9 * np.sqrt(size / 903_168)
        hatch = "///" if any(row.shared_with and row.bytes for row in rows_here) else ""
        axes.bar(place, -side, side, color=colour, hatch=hatch, edgecolor="white")
        axes.text(place, 0.05, name.replace("_", "\n").replace(" ", "\n"), ha="center", fontsize=8)
        axes.text(place, -side - 0.04, f"{size:,}", ha="center", va="top", fontsize=8)
    axes.axhline(0, color="#333333", linewidth=1)
    axes.set(title=method, xlim=(-0.6, 3.6), ylim=(-1.15, 0.55), aspect="equal")
    axes.axis("off")

# %%
without = ledger_of("mobiletl-exact", se_channels=0).kept_bytes
folded = ledger_of("mobiletl-exact").kept_bytes
cost = 945_360 - 903_168
print(f"V3, mobiletl-exact: {folded:,} bytes; squeeze-and-excite takes {cost:,} of them")
assert folded == 2_206_416
assert without == folded - cost
assert cost == 42_192
assert f"{100 * (1 - cost / 945_360):.1f}" == "95.5"

# %% [markdown]
# From 945,360 bytes to 42,192: 95.5 % less, and every gradient is still exact.
#
# ## The price
#
# Memory was bought with work. Which is more: scaling the map once, or scaling the weights once per
# sample?

# %%
scaling_map = 8 * 7 * 7 * 576
scaling_weights = 8 * 96 * 576
projection = 2 * 8 * 7 * 7 * 96 * 576
print(f"multiplications: map {scaling_map:,}, weights {scaling_weights:,}")
print(f"in percent of the projection's FLOPs: {100 * scaling_weights / projection:.1f} %")
assert (scaling_map, scaling_weights, projection) == (225_792, 442_368, 43_352_064)

# %% [markdown]
# About twice as many, and 1.0 % of the projection itself. On a larger map it even turns: the
# weights do not grow with H and W.
#
# ## What you can now do
#
# You can take an operation apart into who needs what, and you have a habit worth more than this one
# trick: *before keeping a buffer, ask who has it already.*
#
# ## Exercises
#
# **7a.** Another gate: one number per *position* instead of per channel, as in spatial attention
# (Woo et al. 2018, arXiv:1807.06521). `gate` is (N, H, W, 1) and y = gate x. Write forward and
# backward; `kept` is a dictionary.


# %%
def position_gate(x, gate, kept):
    """y (N, H, W, C)."""
    raise NotImplementedError  # yours


def position_gate_backward(kept, gy):
    """gx (N, H, W, C) and ggate (N, H, W, 1)."""
    raise NotImplementedError  # yours


check("7a", position_gate, position_gate_backward)

# %% [markdown]
# **7b.** The whole of squeeze-and-excite, backwards. `kept` is what `gate_of` and `scale` have left
# (names as above), `gy` is the gradient of y. Return gx and the gradients of the four parameters by
# name. `unpack(packed, shape)` from `course.pieces` turns a mask into zeros and ones.


# %%
def squeeze_excite_backward(kept, gy, p):
    """gx (N, H, W, C) and {"se.fc1.weight": ..., "se.fc1.bias": ..., ...}."""
    raise NotImplementedError  # yours


check("7b", squeeze_excite_backward)

# %% [markdown]
# **7c.** `gated_conv_backward` without the loop over samples: three or four lines of `np.einsum`.


# %%
def gated_conv_backward_at_once(kept, gy, w):
    """gx (N, H, W, C), ggate (N, 1, 1, C) and gw (O, C, 1, 1); kept has "x" and "gate"."""
    raise NotImplementedError  # yours


check("7c", gated_conv_backward_at_once)

# %% [markdown]
# **Next:** [8. Adapt to new digits](08_adapt_to_new_digits.py): does it still learn?
#
# *The gate's gradient needs the whole map it multiplied; scale the projection's weights instead of
# the map, and the one map that the projection keeps serves both.*
