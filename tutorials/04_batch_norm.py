# %% [markdown]
# # 4. What does a norm keep when it trains, when it is frozen, when only its shift trains?
#
# *Needs: [1, one operation](01_one_operation.py), and [2, the tape](02_the_tape.py) for `needs`.
# Takes 25 minutes. Next: [5, activations in bits](05_activations_in_bits.py) or [6, the
# block](06_the_block.py).*
#
# Behind every convolution of a MobileNet stands a batch norm (Ioffe and Szegedy 2015,
# arXiv:1502.03167). It brings each channel to mean 0 and variance 1, so that layers need not adapt
# to each other's scale, and then gives it a scale and a shift that are learnt. Per channel, over the M =
# N H W values that a batch has of it:
#
#     mean = sum(x) / M      var = sum((x - mean)^2) / M      inv_std = 1 / sqrt(var + eps)
#     x_hat = (x - mean) inv_std                              y = gamma x_hat + beta
#
# Maps are (N, H, W, C); mean, var, inv_std, gamma, beta are (C,). The small eps keeps a dead channel
# from dividing by zero; 1e-3 in MobileNetV3.

# %%
import numpy as np

EPS = 1e-3
AXES = (0, 1, 2)


def batch_norm(x, gamma, beta, kept, eps=EPS):
    mean, var = x.mean(axis=AXES), x.var(axis=AXES)
    kept["inv_std"] = 1 / np.sqrt(var + eps)
    kept["x_hat"] = (x - mean) * kept["inv_std"]
    return gamma * kept["x_hat"] + beta


rng = np.random.default_rng(0)
x = 3 + 2 * rng.standard_normal((3, 7, 5, 4))
gamma, beta = rng.uniform(0.5, 1.5, 4), rng.standard_normal(4)
y = batch_norm(x, gamma, beta, {})
assert abs(y.mean(axis=AXES) - beta).max() < 1e-12
assert abs(y.std(axis=AXES) - gamma).max() < 1e-3

# %% [markdown]
# gbeta = sum(gy) and ggamma = sum(gy x_hat) are as in tutorial 1. And gx? A first try: y = gamma
# inv_std x + something, so gx = gamma inv_std gy. **Predict** whether the check of tutorial 1 lets it
# pass.

# %%
from course.differences import check_gradient


def naive(kept, gy):
    return gamma * kept["inv_std"] * gy


def forward(x, kept):
    return batch_norm(x, gamma, beta, kept)


print("naive:", check_gradient(forward, naive, x, rng))
assert not check_gradient(forward, naive, x, rng)

# %% [markdown]
# It does not: mean and inv_std are made of x. Move one x, and through them *all* x_hat of its channel
# move. Differentiate them as well (per channel, for the j-th x_hat and the i-th x; 1[i = j] is 1 where
# i = j, else 0):
#
#     d mean / d x_i    = 1 / M
#     d inv_std / d x_i = - inv_std^2 x_hat_i / M
#     d x_hat_j / d x_i = inv_std (1[i = j] - 1 / M - x_hat_i x_hat_j / M)
#
# Multiply by gamma gy_j and sum over j:
#
#     gx = gamma inv_std (gy - mean(gy) - x_hat mean(gy x_hat))
#
# In words: **take from gy its mean, and its part along x_hat.** It must be so. Add a constant to all
# x of a channel, or stretch them: y does not change, so L does not, and gx has to say so. You write
# this backward in exercise 4a; until then the course lends one. (In tutorial 6 the operations of
# `course/pieces.py` share their dictionaries, so each takes the name of its layer, here "n": the
# function reads "n.x_hat" from what was kept and "n.weight", gamma, from the parameters, and writes
# ggamma and gbeta into its last argument.)
#
# The picture shows one channel, a point for each of its values, gx against x_hat. Look for what the
# right gradient has lost: its height and its tilt.

# %%
from course import pieces
from course.figures import BLUE, RED, figure, finish


def right(kept, gy):
    names = {"n.x_hat": kept["x_hat"], "n.inv_std": kept["inv_std"]}
    return pieces.batch_norm_backward(names, gy, {"n.weight": gamma}, "n", {})


assert check_gradient(forward, right, x, rng)

kept = {}
forward(x, kept)
gy = rng.standard_normal(x.shape) + 1 + 0.8 * kept["x_hat"]  # with a mean, and a part along x_hat
fig, panels = figure(2, height=2.6, sharey=True)
for ax, backward, color in zip(panels, (naive, right), (RED, BLUE), strict=True):
    points = kept["x_hat"][..., 0].ravel(), backward(kept, gy)[..., 0].ravel()
    slope, height = np.polyfit(*points, 1)
    ax.plot(*points, ".", color=color, markersize=4)
    ax.plot([-2.5, 2.5], [height - 2.5 * slope, height + 2.5 * slope], color="black", linewidth=1)
    finish(
        ax,
        f"{backward.__name__}: mean {abs(height):.2f}, tilt {abs(slope):.2f}",
        "x_hat",
        "gx" * (ax is panels[0]),
    )

# %% [markdown]
# ## Two sums that are nothing, or nearly
#
# So per channel sum(gx) should be 0, and sum(gx x_hat) too. Here is a trap: **predict** both, in
# float64.

# %%
for eps in (0, EPS):
    kept = {}
    batch_norm(x, np.ones(4), beta, kept, eps)
    names = {f"n.{name}": array for name, array in kept.items()}
    gx = pieces.batch_norm_backward(names, gy, {"n.weight": np.ones(4)}, "n", {})
    constant, along = abs(gx.sum(axis=AXES)).max(), abs((gx * kept["x_hat"]).sum(axis=AXES)).max()
    below = f"sum(gx) {constant < 1e-12}, sum(gx x_hat) {along < 1e-12}"
    print(f"eps {eps:5}, is it below 1e-12? {below}")
    assert constant < 1e-12
    left_over = kept["inv_std"] ** 3 * eps * (gy * kept["x_hat"]).sum(axis=AXES)
    assert abs((gx * kept["x_hat"]).sum(axis=AXES) - left_over).max() < 1e-12

# %% [markdown]
# With eps the second sum is not 0: x_hat has the variance var / (var + eps), a little below 1, so
# stretching x does change y a little. What is left is exactly inv_std^3 eps sum(gy x_hat).
#
# A consequence for everybody who tests a network: if the loss is the *sum* of a batch norm's outputs,
# gy is constant, and of a constant nothing is left. All gradients below are zero, and such a test
# loss tests nothing. From here on gy is random.

# %%
kept = {}
forward(x, kept)
print("gx below 1e-12 for gy = 1:", bool(abs(right(kept, np.ones_like(x))).max() < 1e-12))
assert abs(right(kept, np.ones_like(x))).max() < 1e-12

# %% [markdown]
# ## What it keeps
#
# gx needs x_hat and inv_std; ggamma needs x_hat; gbeta needs nothing. (Why x_hat and not x? With x
# the mean would have to be kept too: 4 bytes more per channel. The paper's savings come out only
# with x_hat.) On the wide map of the paper's block, 8x7x7x576 in float32: **predict** four
# cases. All gradients wanted; no gx; gbeta alone; gbeta and gx. Most people get the last one wrong.

# %%
import minitl

WIDE = (8, 7, 7, 576)
SHAPES = (WIDE, (576,), (576,), (576,), (576,))  # x, gamma, beta, running mean and variance
NEEDS = {  # of x, gamma, beta; the running statistics have no gradient
    "gx, ggamma, gbeta": (True, True, True, False, False),
    "ggamma, gbeta": (False, True, True, False, False),
    "gbeta": (False, False, True, False, False),
    "gx, gbeta": (True, False, True, False, False),
}
held = {}
for wanted, needs in NEEDS.items():
    kept = minitl.ops.batch_norm.cost(SHAPES, "float32", needs=needs).kept
    held[wanted] = sum(k.nbytes for k in kept)
    print(f"{wanted:18}{held[wanted]:>9,} bytes  {', '.join(k.tensor for k in kept)}")
assert list(held.values()) == [905_472, 903_168, 0, 905_472]

# %% [markdown]
# **Training the shift alone saves nothing** as long as a gradient has to pass: gx needs x_hat, because
# the statistics move with x. If something below trains, the norm keeps 905,472 bytes whether its
# gamma trains or not.
#
# ## Freeze the statistics
#
# What takes the memory is the batch's own mean and variance. In evaluation a norm uses *running*
# statistics instead, averages that were collected in training. Use these in training, too, and keep
# them fixed: then the norm is a straight line per channel,
#
#     y = scale x + shift      scale = gamma / sqrt(running_var + eps)
#                              shift = beta - running_mean scale
#
# and so gx = scale gy, gbeta = sum(gy). No x anywhere. **Predict** what it keeps when the shift trains
# and a gradient passes.

# %%
needs = (True, False, True, False, False)
kept = minitl.ops.frozen_norm.cost(SHAPES, "float32", needs=needs).kept
print("frozen norm, gx and gbeta:", sum(k.nbytes for k in kept), "bytes")
assert kept == ()

# %% [markdown]
# 0 bytes. This is MobileTL's norm inside a block: frozen statistics, frozen scale, trained shift.
# Why not train the scale as well? ggamma = sum(gy x_hat) would need the whole map again.
#
# ## What it costs
#
# Freezing changes the *function* that is trained: the statistics are those of the old images. Here
# are channels that have learnt something about the digits 0 to 4. There is one per digit: a weighted
# sum of the pixels, fitted (by least squares, weights held small) to be 1 for that digit and 0 for the other four.
# Normalise one with the statistics of the old digits, and show it the new digits, 5 to 9.

# %%
from minitl.training.data import digits


def pixels(classes):
    """Images of 8x8 as rows of 64 pixels and a 1, and the labels."""
    data = digits(classes, size=8)
    flat = data.images[..., 0].reshape(len(data), -1).astype(np.float64)
    return np.hstack([flat, np.ones((len(data), 1))]), data.labels


old, labels = pixels(range(5))
new, _ = pixels(range(5, 10))
weights = np.linalg.solve(old.T @ old + 10 * np.eye(65), old.T @ np.eye(5)[labels])
channel = 3
values = old @ weights[:, channel]
mean, std = values.mean(), values.std()
under_old = [(images @ weights[:, channel] - mean) / std for images in (old, new)]
print("mean and deviation of x_hat:")
for name, x_hat in zip(("digits 0 to 4", "digits 5 to 9"), under_old, strict=True):
    print(f"{name}  {round(x_hat.mean(), 2) + 0:5.2f} {x_hat.std():5.2f}")
assert abs(under_old[1].mean()) > 0.3

# %% [markdown]
# For the new digits x_hat is off centre, and narrower: the frozen norm does not normalise them. A
# trained shift can put the centre right; the width has to be dealt with by the weights. Look for the
# old digits' second hump, the 3s, which the new digits do not have.

# %%
fig, ax = figure(height=2.5)
edges = np.linspace(-2, 4, 31)
for (x_hat, name), color in zip(
    zip(under_old, ("digits 0 to 4", "digits 5 to 9"), strict=True), (BLUE, RED), strict=True
):
    ax.stairs(np.histogram(x_hat, edges, density=True)[0], edges, color=color, label=name, lw=1.5)
finish(ax, "A channel that knows 3s, under the old statistics", "x_hat", "density", "upper right")

# %% [markdown]
# ## Running statistics
#
# While a norm trains it also moves its running statistics, by a *momentum*:
#
#     running += momentum (of this batch - running)
#
# with the unbiased variance, sum((x - mean)^2) / (M - 1), which for 8 images of 7 x 7 is 392 / 391 of the one
# above. No gradient depends on that, and nothing is kept for it. But it is a side effect: run a
# forward pass twice and it happens twice. Tutorial 9, which runs blocks again to save memory, has to
# take care.
#
# ## The same in minitl

# %%
params = [gamma, beta, np.zeros(4), np.ones(4)]
needs = (True, True, True, False, False)
y, saved = minitl.ops.batch_norm.forward(
    x, *params, attrs={"eps": EPS, "momentum": 0.1}, needs=needs
)
kept = {}
assert abs(y - batch_norm(x, gamma, beta, kept)).max() < 1e-12
assert abs(params[3] - (0.9 + 0.1 * x.var(axis=AXES) * 105 / 104)).max() < 1e-12
gy = rng.standard_normal(x.shape)
gx, ggamma, gbeta, _, _ = minitl.ops.batch_norm.backward(
    saved, gy, attrs={"eps": EPS}, needs=needs, params=params
)
assert abs(gx - right(kept, gy)).max() < 1e-12
assert abs(ggamma - (gy * kept["x_hat"]).sum(axis=AXES)).max() < 1e-11
assert abs(gbeta - gy.sum(axis=AXES)).max() < 1e-11
print("batch norm: y, gx, ggamma, gbeta and running_var agree")

needs = (True, False, True, False, False)
y, saved = minitl.ops.frozen_norm.forward(x, *params, attrs={"eps": EPS}, needs=needs)
scale = gamma / np.sqrt(params[3] + EPS)
assert abs(y - (scale * (x - params[2]) + beta)).max() < 1e-12
assert saved.nbytes == 0
print("frozen norm: y agrees, and", saved.nbytes, "bytes are kept")

# %% [markdown]
# ## What you can now do
#
# Derive the backward of a normalisation from what it ignores; say what a norm keeps for every choice
# of what trains; and see through "we only train the shifts".
#
# ## Exercises
#
# **4a.** The backward of the batch norm.

# %%
from course import check


def batch_norm_backward(kept, gy, gamma):
    """gx (N, H, W, C), ggamma (C,) and gbeta (C,), from kept["x_hat"] and kept["inv_std"]."""
    raise NotImplementedError  # yours


check("4a", batch_norm_backward)

# %% [markdown]
# **4b.** The frozen norm and its backward (for x and the shift), with eps = 1e-3. `p` has the arrays
# "weight" (gamma), "bias" (beta), "running_mean" and "running_var".


# %%
def frozen_norm(x, p, kept):
    """y, of x's shape."""
    raise NotImplementedError  # yours


def frozen_norm_backward(kept, gy, p):
    """gx (N, H, W, C) and gbeta (C,)."""
    raise NotImplementedError  # yours


check("4b", frozen_norm, frozen_norm_backward)

# %% [markdown]
# **4c.** A pointwise convolution and the frozen norm behind it are one convolution with a bias, which
# is how networks are deployed. `w` is (O, I, 1, 1), `p` as in 4b, with (O,) arrays.


# %%
def fold(w, p):
    """The weight (O, I, 1, 1) and the bias (O,) of the one convolution."""
    raise NotImplementedError  # yours


check("4c", fold)

# %% [markdown]
# Next: [5, activations in bits](05_activations_in_bits.py), or, if you have done it, [6, the
# block](06_the_block.py).
#
# So what does a norm keep? With the batch's statistics a whole map, even if only its shift trains;
# with frozen statistics and scale nothing at all.
