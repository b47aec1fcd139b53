# %% [markdown]
# # 1. What must one operation remember, and how do I know that its gradient is right?
#
# *Needs: NumPy, and what a slope is. Takes 20 minutes. Next: [2, the tape](02_the_tape.py).*
#
# Training takes far more memory than inference, and mostly not for weights: each operation keeps
# something of its forward pass until the backward pass asks for it. This course weighs what is
# kept, to the byte, and then makes it less. It starts with one multiplication.
#
# A training step is *forward* (compute y), *loss* (one number L that says how bad y is), *backward*
# (how fast L changes with everything that could be changed). Here are four numbers x, a weight w,
# and the loss L = (y1^2 + y2^2 + ...) / 2.

# %%
import numpy as np

x, w = np.array([0.5, -1.5, 2.0, 3.0]), np.array([2.0, 0.7, -1.1, 0.3])


def loss(y):
    return (y**2).sum() / 2


y = x * w
gy = y  # how fast L changes with each y: the slope of y^2 / 2 is y
print("y ", y)
print("L ", loss(y))
print("gy", gy)

step, third = 1e-6, np.array([0, 0, 1, 0])
assert abs((loss(y + step * third) - loss(y)) - gy[2] * step) < 1e-9

# %% [markdown]
# **`gy` is how fast the loss changes when y does.** Nudge the third y by a millionth, and L moves by
# gy times a millionth: that is what the last line asserts. In the whole course `gy`, `gx` and `gw`
# mean this, for the output, the input and the weight of an operation.
#
# ## From gy to gx and gw
#
# **Predict**: nudge the third *x* by a millionth. By how much does the third y move, and so L?

# %%
rate = (loss((x + step * third) * w) - loss(x * w)) / step
print(f"L moves {rate:.4f} times as much as x")

gx = w * gy
gw = x * gy
print(f"gx there is {gx[2]:.4f}")
assert abs(rate - gx[2]) < 1e-5
rate = (loss(x * (w + step * third)) - loss(x * w)) / step
assert abs(rate - gw[2]) < 1e-5

# %% [markdown]
# y moves w times as much as x, and L moves gy times as much as y. This is the chain rule: gx = w gy,
# and with the roles exchanged gw = x gy. Now look at what each of them *needs*:
#
# > ### gx needs w. gw needs x.
#
# To train w, x must be kept until backward. If w is not trained, nothing of x is needed, and x can
# go as soon as y is there. The rest of the course is this sentence, applied to every operation of a
# network.
#
# ## Is a gradient right? Ask the function itself
#
# A slope can be measured: go a little to both sides, and divide the change of the function by the
# distance:
#
#     (f(x + d) - f(x - d)) / 2d
#
# This is a *central difference*. Look at the picture: the chord from one side to the other runs
# nearly parallel to the tangent, much more so than a line from the middle to one side.

# %%
from course.figures import BLUE, GREEN, RED, figure, finish

line, at, d = np.linspace(0.3, 2.3, 41), 1.3, 0.8
fig, ax = figure(height=3)
ax.plot(line, np.exp(line), color=BLUE, label="exp")
ax.plot(line, np.exp(at) * (1 + line - at), "--", color=BLUE, label="tangent at 1.3")
ax.plot([at - d, at + d], np.exp([at - d, at + d]), "o-", color=RED, label="chord to both sides")
ax.plot([at, at + d], np.exp([at, at + d]), "o-", color=GREEN, label="chord to one side")
finish(ax, "The chord to both sides has nearly the slope of the tangent", "x", legend="upper left")

# %% [markdown]
# How small should d be? Smaller is nearer to the tangent, until f(x + d) and f(x - d) agree in nearly
# all their digits and what is left of the difference is rounding. (The picture shows rounding, so on
# your machine its right half may look a little different.) **Predict** the best d for float64, which
# has 16 digits. Then look where each line turns, and how low it gets.

# %% tags=["volatile"]
ds = 10 ** np.linspace(0, -12, 49)


def relative_error(d, dtype):
    """Of the central difference of exp at 1.3, computed in that dtype."""
    at, d = dtype(1.3), dtype(d)
    slope = (np.exp(at + d) - np.exp(at - d)) / (2 * d)
    return abs(float(slope) / np.exp(1.3) - 1)


fig, ax = figure(height=3)
best = {}
for dtype, color in [(np.float32, RED), (np.float64, BLUE)]:
    errors = [relative_error(d, dtype) for d in ds]
    lowest = int(np.argmin(errors))
    best[dtype.__name__] = errors[lowest]
    ax.plot(ds, errors, color=color, label=dtype.__name__)
    ax.plot(ds[lowest], errors[lowest], "o", color=color)
title, logarithmic = (
    "The error of a central difference, against d",
    {"xscale": "log", "yscale": "log"},
)
finish(ax, title, "d", "relative error", "lower right", **logarithmic, xlim=(2, 5e-13))
assert best["float64"] < 1e-9
assert best["float32"] > 1e-7
assert relative_error(1e-9, np.float32) > 0.1

# %% [markdown]
# From the left both lines fall like d^2; then rounding takes over and they rise like 1/d. float64 is
# best near d = 1e-5, with ten digits right. float32 gets five digits right at its best, and with a
# small d none. Therefore **gradients are checked in float64, with d = 1e-5 or 1e-6**. (And bytes
# are counted in float32, which is what training uses.)
#
# ## Five operations
#
# Here are five operations as pairs of functions. The rule of the game, from here to the last
# tutorial: **forward writes to `kept`; backward sees `kept`, `gy` and the parameters, and nothing
# else.** So `kept` is all that an operation remembers, and can be weighed.


# %%
def product(x, w, kept):
    kept["x"] = x  # for gw
    return x * w


def product_backward(kept, gy, w):
    return gy * w, gy * kept["x"]  # gx, gw


def square(x, kept):
    kept["x"] = x
    return x**2


def square_backward(kept, gy):
    return gy * 2 * kept["x"]


def exp(x, kept):
    kept["y"] = np.exp(x)  # the slope of exp is exp: its own output
    return kept["y"]


def exp_backward(kept, gy):
    return gy * kept["y"]


# %%
def relu(x, kept):
    kept["positive"] = x > 0  # slope 1 where x > 0, else 0
    return np.maximum(x, 0)


def relu_backward(kept, gy):
    return gy * kept["positive"]


def total(x, kept):
    kept["shape"] = x.shape  # slope 1 for every element
    return x.sum()


def total_backward(kept, gy):
    return np.full(kept["shape"], gy)


# %% [markdown]
# Three kinds of memory, then: an input, an output, or less than either. ReLU needs one *bit* per
# element, yes or no; but NumPy's smallest element is a byte, also for a bool. To really have eight
# bits in a byte, pack them. With `bitorder="little"` the first element becomes the lowest bit, the
# one written last:

# %%
x = np.array([-4, -3, -2, -1, 1, 2, 3, 4], np.float32)
packed = np.packbits(x > 0, bitorder="little")
print(f"{packed.nbytes} byte: 0b{packed[0]:08b}")
assert packed[0] == 0b11110000
assert (np.unpackbits(packed, bitorder="little") == (x > 0)).all()

# %% [markdown]
# Now a map of a real network, of the block that the MobileTL paper takes apart: 8 images, 7x7
# positions, 576 channels, in float32. **Predict** the four numbers before you run the cell.

# %%
rng = np.random.default_rng(0)
x = rng.standard_normal((8, 7, 7, 576)).astype(np.float32)
rows = x.reshape(-1, 576)  # one row per position; a view, no copy
weights = {
    "x or y": x.nbytes,
    "one bool per element": (x > 0).nbytes,
    "one bit per element": np.packbits(rows > 0, axis=0, bitorder="little").nbytes,
    "a shape": 0,
}
for what, count in weights.items():
    print(f"{what:22}{count:>9,} bytes")
assert list(weights.values()) == [903_168, 225_792, 28_224, 0]

# %% [markdown]
# y weighs as much as x, but it is *free if somebody else keeps it*: the operation that comes next
# has it as its x. That will matter more than everything else (tutorial 5).
#
# ## Checking all elements at once
#
# To check a thousand elements one by one takes two thousand runs. Instead, walk all elements at once
# along a random direction t. L changes along t by the sum over all elements of gx times t, written
# <gx, t>. And the loss? Draw gy at random too, and take L = sum(gy y). One number checks a
# thousand. Sizes are odd and unequal and all numbers random: zeros, ones and symmetric arrays hide
# faults.


# %%
def slopes(forward, backward, x, rng, d=1e-5):
    """The slope of sum(gy y) along a random t, by differences, and <gx, t>, by backward."""
    kept = {}
    y = forward(x, kept)
    gy, t = rng.standard_normal(np.shape(y)), rng.standard_normal(x.shape)
    difference = (gy * (forward(x + d * t, {}) - forward(x - d * t, {}))).sum() / (2 * d)
    return difference, (backward(kept, gy) * t).sum()


def forgets_the_2(kept, gy):
    return gy * kept["x"]


def wrong_at_one_element(kept, gy):
    gx = square_backward(kept, gy)
    gx[1, 2, 0, 5] += 0.1
    return gx


x = rng.standard_normal((2, 5, 3, 7))
for backward in (square_backward, forgets_the_2, wrong_at_one_element):
    by_differences, by_backward = slopes(square, backward, x, np.random.default_rng(1))
    right = abs(by_backward - by_differences) < 1e-6 * np.linalg.norm(x)
    print(
        f"{backward.__name__:21}{by_differences:9.4f}{by_backward:9.4f}",
        "" if right else "  caught",
    )
    assert right == (backward is square_backward)
for forward, backward in [(exp, exp_backward), (relu, relu_backward), (total, total_backward)]:
    by_differences, by_backward = slopes(forward, backward, x, rng)
    assert abs(by_backward - by_differences) < 1e-6 * np.linalg.norm(x)

# %% [markdown]
# Both planted faults are caught, also the one in a single element of 210.
#
# One place must be left out: a **kink**. At x = 0 ReLU has no slope; a central difference says 1/2,
# halfway between both sides, and we say 0. That is a convention, not a truth. Random numbers never
# hit 0, so the check steps aside by itself.

# %%
d = 1e-5
print("at 0, by differences:", (max(d, 0) - max(-d, 0)) / (2 * d))
kept = {}
relu(np.array([0.0]), kept)
assert relu_backward(kept, np.array([1.0])) == 0

# %% [markdown]
# ## The same in minitl
#
# `minitl` has these operations with fast kernels. Each takes `needs`, one flag per input: "will
# somebody want this gradient?", and returns y and what it keeps. (The first call of a kernel
# compiles it, once, which takes some seconds.)

# %%
import minitl

x = rng.standard_normal((2, 5, 3, 7))
y, saved = minitl.ops.relu.forward(x, needs=(True,))
ours = np.packbits(x.reshape(-1, 7) > 0, axis=0, bitorder="little")
assert (saved["mask"] == ours).all()
assert (y == np.maximum(x, 0)).all()

_, nothing = minitl.ops.relu.forward(x, needs=(False,))
print("kept where gx is wanted:    ", saved.nbytes, "bytes")
print("kept where nobody wants gx: ", nothing.nbytes, "bytes")
assert (saved.nbytes, nothing.nbytes) == (ours.nbytes, 0) == (4 * 7, 0)

# %% [markdown]
# The same bits, to the byte: 30 positions are 4 bytes per channel, and 7 channels. Open
# `minitl/ops/convolutions/linear.py` and read it from the top: the formula, `forward`, `backward`, and `cost`, which
# says from shapes alone what is kept. Every operation of `minitl` is such a file. (Activations share
# theirs, in `ops/activations/activation.py`; `ops/activations/relu.py` has the formula and the slopes.)
#
# ## What you can now do
#
# Write an operation as `forward(x, kept)` and `backward(kept, gy)`, say what it keeps, and check its
# gradient along one random direction in float64.
#
# ## Exercises
#
# Replace the `raise` line, run the cell, read what `check` says. `hint("1a")` helps, `hint("1a", 2)`
# helps more, and `solutions/01.py` has one way of doing it.
#
# **1a.** The sigmoid, y = 1 / (1 + exp(-x)), and its backward. Keep as little as you can.

# %%
from course import check


def sigmoid(x, kept):
    """y, of x's shape; writes to `kept` what backward will need."""
    raise NotImplementedError  # yours


def sigmoid_backward(kept, gy):
    """gx, of gy's shape."""
    raise NotImplementedError  # yours


check("1a", sigmoid, sigmoid_backward)

# %% [markdown]
# **1b.** The check itself: True if `backward(kept, gy)` is the slope of `forward(x, kept)`, else
# False. `slopes` above does most of it, but you will need gx and t as well, so take it apart. What is
# left is to say what "equal" means, when gradients can be large or tiny.


# %%
def check_gradient(forward, backward, x, rng):
    """Whether the gradient is right at x; `rng` is a NumPy random generator."""
    raise NotImplementedError  # yours


check("1b", check_gradient)

# %% [markdown]
# **1c.** Packing by hand, without `np.packbits`: shift (`<<`) and or (`|`). Along the positions of a
# channel, the first position being the lowest bit, the last byte filled with zeros. And the bytes of
# a packed map as a formula.


# %%
def pack(bits):
    """Booleans (M, C) as uint8 (ceil(M / 8), C)."""
    raise NotImplementedError  # yours


def unpack(packed, count):
    """The first `count` booleans of each channel, (count, C)."""
    raise NotImplementedError  # yours


def packed_bytes(positions, channels):
    """How many bytes `pack` gives."""
    raise NotImplementedError  # yours


check("1c", pack, unpack, packed_bytes)

# %% [markdown]
# Next: [2, the tape](02_the_tape.py), where a list of operations becomes gradients by itself.
#
# So what must one operation remember? What its gradients need, and no more: gw needs x, gx needs w;
# and you know that a gradient is right when it agrees with a central difference in float64.
