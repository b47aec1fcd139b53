# %% [markdown]
# # 3. Why does a convolution keep its input, and when does it not?
#
# *Needs: [1, one operation](01_one_operation.py), and [2, the tape](02_the_tape.py) for `needs`.
# Takes 30 minutes. Next: [4, batch norm](04_batch_norm.py) or [5, activations in
# bits](05_activations_in_bits.py).*
#
# A MobileNet is made of two kinds of convolution. *Pointwise* (1x1) mixes channels and looks at one
# position; *depthwise* (kxk) looks at a neighbourhood and leaves channels alone. Maps are (N, H, W,
# C): images, rows, columns, channels. Weights have PyTorch's shapes: (O, I, 1, 1) for a pointwise
# convolution from I to O channels, (C, 1, k, k) for a depthwise one.
#
# ## Pointwise: a matrix product at every position
#
# See the map as rows, one per position, M = N H W of them. Then the convolution is one product of
# matrices:
#
#     y = x W^T          (M, O) = (M, I) (I, O)

# %%
import numpy as np


def rows(x):
    """(N, H, W, C) seen as (N H W, C): a view, no copy."""
    return x.reshape(-1, x.shape[-1])


def pointwise(x, w, kept):
    kept["x"] = x
    return x @ w[:, :, 0, 0].T


rng = np.random.default_rng(0)
x = rng.standard_normal((2, 5, 3, 7))
w = rng.standard_normal((4, 7, 1, 1))
y = pointwise(x, w, {})
assert y.shape == (2, 5, 3, 4)
assert abs(y[1, 4, 2] - w[:, :, 0, 0] @ x[1, 4, 2]).max() < 1e-12
assert rows(x).base is x

# %% [markdown]
# Its two gradients are two more products. gx has x's shape (M, I), gw has W's shape (O, I), and gy
# is (M, O). **Predict** them: write the shapes of gy, W and x on paper; for each gradient only one
# order of factors and transposes fits. (You need not differentiate. And where a factor has to be
# summed away, it is M in one product and O in the other.) Exercise 3a asks for the code.
#
# ## Depthwise: one loop nest, three times
#
# A depthwise convolution is a filter per channel. Every multiply-add (MAC) of it brings three numbers
# together: an input, a tap of the filter, an output. We list all such *triples* once (for images
# and channels NumPy does the same at once), with p = (k - 1) / 2 zeros around the image:
#
#     y[i, j] takes w[u, v] x[a, b]    where a = i + u - p, b = j + v - p, if that lies in the image
#
# y adds up w x over the triples. Now the chain rule: each product moves y by w times what x moves,
# so x is sent w gy; and w is sent x gy. The *same* triples; only the line in the middle changes.


# %%
def triples(height, width, k):
    """(output position, tap, input position) of all multiply-adds with stride 1."""
    p = (k - 1) // 2
    for i in range(height):
        for j in range(width):
            for u in range(k):
                for v in range(k):
                    a, b = i + u - p, j + v - p
                    if 0 <= a < height and 0 <= b < width:
                        yield (i, j), (u, v), (a, b)


x = rng.standard_normal((2, 7, 5, 8))
w = rng.standard_normal((8, 1, 3, 3))
gy = rng.standard_normal(x.shape)

y, gx, gw = np.zeros_like(x), np.zeros_like(x), np.zeros_like(w)
for (i, j), (u, v), (a, b) in triples(7, 5, 3):
    y[:, i, j] += w[:, 0, u, v] * x[:, a, b]
    gx[:, a, b] += w[:, 0, u, v] * gy[:, i, j]
    gw[:, 0, u, v] += (x[:, a, b] * gy[:, i, j]).sum(axis=0)

# %% [markdown]
# Three lines, side by side. Two questions about the last one: why a sum over the images, and why no
# mean? Because one w serves all of them, and everything it moves adds up. (A mean, if there is one,
# is in the loss.)
#
# Here is the same in one dimension: 7 inputs, 3 taps, 7 outputs, and a line for each triple, coloured
# by its tap (w0, w1 or w2). Look at what stays the same from panel to panel (all lines), and what does
# not (where the numbers are collected).

# %%
from course.figures import BLUE, GREEN, RED, figure, finish

TAPS = (BLUE, RED, GREEN)


def draw_triples(ax, inputs, stride, collect):
    """Lines from inputs (bottom) to outputs (top); arrowheads or squares where numbers add up."""
    outputs = -(-inputs // stride)
    for i in range(outputs):
        for u in range(3):
            a = stride * i + u - 1
            if 0 <= a < inputs:
                ends = [(a, 0.06), (stride * i, 0.94)]
                start, end = ends if collect != "x" else ends[::-1]
                style = {"arrowstyle": "-" if collect == "w" else "->", "color": TAPS[u], "lw": 1.2}
                ax.annotate("", end, start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
    ax.plot(range(inputs), [0] * inputs, "o", color="black", markersize=5)
    ax.plot(np.arange(outputs) * stride, [1] * outputs, "o", color="black", markersize=5)
    for height, name in enumerate("xy"):
        ax.text(-0.7, height, name, ha="center", va="center")
    if collect == "w":
        places = np.array([inputs / 2 - 1.5, inputs / 2 - 0.5, inputs / 2 + 0.5])
        for tap, (place, color) in enumerate(zip(places, TAPS, strict=True)):
            square = {"color": color, "markersize": 15, "markeredgecolor": "black", "zorder": 4}
            ax.plot(place, 0.5, "s", **square)
            centred = {"ha": "center", "va": "center", "zorder": 5}
            ax.text(place, 0.49, f"w{tap}", color="white", fontsize=8, **centred)
    ax.set_axis_off()


fig, panels = figure(3, height=2.4)
fig.suptitle("Stride 1: the same triples, collected in three places")
for ax, collect, title in zip(panels, "yxw", ["y += w x", "gx += w gy", "gw += x gy"], strict=True):
    draw_triples(ax, 7, 1, collect)
    finish(ax, title, xlim=(-1, 6.5), ylim=(-0.15, 1.15))

# %% [markdown]
# Seen from an input, the taps come in the opposite order: the output on its *left* reaches it with
# the last tap. That is what books mean by "convolve gy with the filter turned round". You need not
# remember it: keep the triples and it comes by itself.
#
# ## A check without differences
#
# y is *bilinear*: linear in x for fixed w, linear in w for fixed x. So the same sum over all triples
# of gy w x can be bracketed in three ways:
#
#     sum(gy y) = sum(gx x) = sum(gw w)
#
# to the last digits of rounding. It is the strictest check there is for a convolution, and it is
# cheap. A filter that is not turned round fails it.

# %%
sums = np.array([(gy * y).sum(), (gx * x).sum(), (gw * w).sum()])
print("three sums agree within 1e-12:", bool(np.ptp(sums) < 1e-12 * abs(gy * y).sum()))
assert np.ptp(sums) < 1e-12 * abs(gy * y).sum()

wrong = np.zeros_like(x)
for (i, j), (u, v), (a, b) in triples(7, 5, 3):
    wrong[:, i, j] += w[:, 0, u, v] * gy[:, a, b]  # a convolution of gy, filter not turned round
print("and with the filter not turned round:", bool(abs((wrong * x).sum() - sums[0]) < 1e-3))
assert abs((wrong * x).sum() - sums[0]) > 1

# %% [markdown]
# ## One shift per tap
#
# Python loops are slow. For a fixed tap, all positions can be done at once: pad the map with zeros,
# shift it by (u, v), multiply by w[u, v], add. k^2 shifts instead of H W k^2 steps, and the same
# triples.


# %%
def pad(x, k):
    """Zeros around the image, for a k x k filter."""
    return np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))


def depthwise(x, w, kept):
    kept["x"] = x
    _, height, width, _ = x.shape
    k = w.shape[2]
    y, padded = np.zeros_like(x), pad(x, k)
    for u in range(k):
        for v in range(k):
            y += w[:, 0, u, v] * padded[:, u : u + height, v : v + width]
    return y


assert abs(depthwise(x, w, {}) - y).max() < 1e-12

# %% [markdown]
# The backward is the same two loops; exercise 3b asks for it.
#
# ## Stride 2
#
# With stride s an output looks at a = s i + u - p, and there are ceil(H / s) rows of them. Which
# triples reach an input a? Those with u = a + p - s i: the taps of one parity only. Look at the
# picture, where forward skips outputs and backward has *holes* between the gy it spreads: an input with
# an even number (from 0) is reached by one tap, the middle one, an odd one by two.

# %%
fig, panels = figure(2, height=2.2)
fig.suptitle("Stride 2: forward skips outputs, backward leaves holes")
for ax, collect, title in zip(panels, "yx", ["y += w x", "gx += w gy"], strict=True):
    draw_triples(ax, 7, 2, collect)
    finish(ax, title, xlim=(-1, 6.5), ylim=(-0.15, 1.15))

# %% [markdown]
# ## What each keeps
#
# Look at the three lines again. gw needs x; gx needs w, which is there anyway. So
#
# > **a convolution keeps its input if its weight trains, and nothing if it is frozen,** whether or
# > not a gradient passes through it.
#
# **Predict** what the three convolutions of the paper's block keep: 8 images, 7x7, channels 96 -> 576
# -> 96, 5x5 filters, float32. Then freeze the weights, let gradients pass, and predict again.

# %%
import minitl

N, H, W, C, E, K = 8, 7, 7, 96, 576, 5
CONVOLUTIONS = {  # op, shape of x, shape of w
    "expand": (minitl.ops.pointwise_conv, (N, H, W, C), (E, C, 1, 1)),
    "depthwise": (minitl.ops.depthwise_conv, (N, H, W, E), (E, 1, K, K)),
    "project": (minitl.ops.pointwise_conv, (N, H, W, E), (C, E, 1, 1)),
    "dense 5x5": (minitl.ops.conv, (N, H, W, C), (C, C, K, K)),
}
costs = {}
print(f"{'':12}{'kept: w trains':>15}{'w frozen':>10}{'MACs of y':>13}{'of gx':>13}{'of gw':>13}")
for name, (op, x_shape, w_shape) in CONVOLUTIONS.items():
    costs[name] = cost = op.cost((x_shape, w_shape), "float32", needs=(True, True))
    frozen = op.cost((x_shape, w_shape), "float32", needs=(True, False)).kept
    kept = sum(k.nbytes for k in cost.kept)
    macs = [cost.macs.forward, cost.macs.grad_input, cost.macs.grad_weight]
    print(
        f"{name:12}{kept:>15,}{sum(k.nbytes for k in frozen):>10,}"
        + "".join(f"{m:>13,}" for m in macs)
    )
    assert kept == 4 * np.prod(x_shape)
    assert frozen == ()
    assert len(set(macs)) == 1  # the same triples, three times
assert costs["expand"].macs.forward == costs["project"].macs.forward == 21_676_032
assert costs["depthwise"].macs.forward == 5_644_800
assert costs["dense 5x5"].macs.forward == 90_316_800

# %% [markdown]
# A frozen convolution is free. (In `minitl`. PyTorch's keeps its input in cases even where only gx is
# wanted: [pytorch#133566](https://github.com/pytorch/pytorch/issues/133566). This is one reason why
# freezing layers there saves less than one expects.)
#
# And **work and memory do not go together**. The last line of the table is an ordinary 5x5
# convolution, 96 -> 96 channels: 230,400 weights and four times the work of a pointwise one, and it
# keeps only 150,528 bytes. The depthwise convolution does the least work of all and keeps 903,168 bytes.
# Compare the two panels: the highest bar on the left is among the lowest on the right, and the lowest
# is among the highest.

# %%
assert 5 * 5 * 96 * 96 == 230_400
fig, (left, right) = figure(2, height=2.8)
fig.suptitle("Four convolutions of the block: work and memory do not go together")
names = list(costs)
left.bar(names, [costs[n].macs.forward / 1e6 for n in names], color=BLUE)
finish(left, "work", "", "million MACs forward")
right.bar(names, [sum(k.nbytes for k in costs[n].kept) / 1e3 for n in names], color=RED)
finish(right, "memory", "", "thousand bytes kept")
for ax in (left, right):
    ax.tick_params(axis="x", labelsize=8)
    ax.grid(visible=False, axis="x")

# %% [markdown]
# The inverted residual block, which saves so much work and so many weights, puts its cheap operation
# on its widest map. For training that is the wrong place, and it is why MobileNets need a method of
# their own.
#
# ## The same in minitl
#
# Odd sizes, strides 1 and 2, all three results. (The first call compiles the kernels, once: some
# seconds.)


# %%
def by_triples(x, w, gy, stride):
    """gx and gw, from the triples."""
    gx, gw, p = np.zeros_like(x), np.zeros_like(w), (w.shape[2] - 1) // 2
    for i, j in np.ndindex(gy.shape[1:3]):
        for u, v in np.ndindex(w.shape[2:]):
            a, b = stride * i + u - p, stride * j + v - p
            if 0 <= a < x.shape[1] and 0 <= b < x.shape[2]:
                gx[:, a, b] += w[:, 0, u, v] * gy[:, i, j]
                gw[:, 0, u, v] += (x[:, a, b] * gy[:, i, j]).sum(axis=0)
    return gx, gw


op, needs = minitl.ops.depthwise_conv, (True, True)
for stride in (1, 2):
    for k in (3, 5):
        x, w = rng.standard_normal((2, 7, 5, 9)), rng.standard_normal((9, 1, k, k))
        y, saved = op.forward(x, w, attrs={"stride": stride}, needs=needs)
        gy = rng.standard_normal(y.shape)
        assert y.shape == (2, -(-7 // stride), -(-5 // stride), 9)
        gx, gw = op.backward(saved, gy, attrs={"stride": stride}, needs=needs, params=(w,))
        ours = by_triples(x, w, gy, stride)
        assert max(abs(gx - ours[0]).max(), abs(gw - ours[1]).max()) < 1e-11
print("depthwise: gx and gw agree within 1e-11")

x, w = rng.standard_normal((2, 5, 3, 7)), rng.standard_normal((4, 7, 1, 1))
y, saved = minitl.ops.pointwise_conv.forward(x, w, needs=needs)
assert abs(y - pointwise(x, w, {})).max() < 1e-12
assert saved["x"].nbytes == x.nbytes

# %% [markdown]
# ## What you can now do
#
# Write the backward of any convolution from its triples, check it by the three sums, and say what it
# keeps.
#
# ## Exercises
#
# **3a.** The backward of the pointwise convolution above.

# %%
from course import check


def pointwise_backward(kept, gy, w):
    """gx (N, H, W, I) and gw (O, I, 1, 1), from kept["x"], gy (N, H, W, O) and w (O, I, 1, 1)."""
    raise NotImplementedError  # yours


check("3a", pointwise_backward)

# %% [markdown]
# **3b.** The backward of the depthwise convolution, stride 1, with one shift per tap.


# %%
def depthwise_backward(x, w, gy):
    """gx (N, H, W, C) and gw (C, 1, k, k)."""
    raise NotImplementedError  # yours


check("3b", depthwise_backward)

# %% [markdown]
# **3c.** Forward and backward with stride 2, for filters of any odd size. There are ceil(H / 2) rows
# of outputs; slices with a step (`a[start:stop:2]`) do the rest.


# %%
def strided(x, w):
    """y (N, ceil(H / 2), ceil(W / 2), C)."""
    raise NotImplementedError  # yours


def strided_backward(x, w, gy):
    """gx (N, H, W, C) and gw (C, 1, k, k)."""
    raise NotImplementedError  # yours


check("3c", strided, strided_backward)

# %% [markdown]
# **3d.** What the convolutions of a block keep, in bytes of float32, for any choice of trained
# weights. `layers` is a dictionary, from a convolution's name to the shape of its input, in the order
# in which they run; `trained` is a set of names. Use it on the block of the paper: which two layers
# keep most, and would be the first to freeze?


# %%
def kept_by(layers, trained):
    """{name: bytes that this convolution keeps}, for all layers."""
    raise NotImplementedError  # yours


check("3d", kept_by)

# %% [markdown]
# Next: [4, batch norm](04_batch_norm.py), which sits behind every convolution.
#
# So why does a convolution keep its input? For the gradient of its weight, and for nothing else:
# freeze the weight, and it keeps nothing.
