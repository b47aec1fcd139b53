# %% [markdown]
# # 5. How many bits per element does an activation need?
#
# *Needs: [1, one operation](01_one_operation.py). Takes 30 minutes. Next: [6, the
# block](06_the_block.py).*
#
# Tutorial 1 ended with ReLU, whose backward needs one bit per element. MobileNets use two other
# activations. With relu6(t) = min(max(t, 0), 6), element by element,
#
#     ReLU6:       y = relu6(x)
#     Hard-Swish:  y = h(x) = x relu6(x + 3) / 6
#
# and with one line for each region of x, their slopes are
#
#     ReLU6:       0 where x <= 0     1 where 0 < x < 6                 0 where x >= 6
#     Hard-Swish:  0 where x <= -3    (2x + 3) / 6 where -3 < x < 3     1 where x >= 3
#
# At a border between two regions (a *kink*) the slope jumps and there is no derivative; the value
# given above, from the outer side, is a convention.

# %%
import numpy as np


def relu6(x):
    return np.clip(x, 0, 6)


def relu6_slope(x):
    return ((x > 0) & (x < 6)).astype(x.dtype)


def hard_swish(x):
    return x * relu6(x + 3) / 6


def hard_swish_slope(x):
    return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)


x, d = np.array([-4, -2, -1, 0.5, 1, 2, 4, 7]), 1e-5  # no kink among them
print("   x  relu6'      h(x)     h'(x)")
for value in x:
    print(
        f"{value:4}{relu6_slope(value):8.0f}{hard_swish(value):10.4f}{hard_swish_slope(value):10.4f}"
    )
for f, slope in [(relu6, relu6_slope), (hard_swish, hard_swish_slope)]:
    assert abs((f(x + d) - f(x - d)) / (2 * d) - slope(x)).max() < 1e-9

# %% [markdown]
# Backward is one line for both: gx = slope(x) gy. So backward must know the slope, and the question
# is what forward keeps to tell it. We weigh on the map of the paper's block: 8 images, 7x7
# positions, 576 channels, float32. (Bytes are counted in float32 throughout the course, slopes are
# compared in float64.)
#
# ## ReLU6: two bits, one, or none
#
# **Predict.** x itself is 903,168 bytes. The paper's baseline keeps a code for the region: 0, 1 or 2,
# two bits. How many bytes is that? Could it be fewer, with the slope still exact?

# %%
SHAPE = (8, 7, 7, 576)
rng = np.random.default_rng(0)
x = 3 * rng.standard_normal(SHAPE).astype(np.float32)
y = relu6(x)

codes = (x > 0).astype(np.uint8) + (x >= 6)
two_bits = codes.size * 2 // 8
band = np.packbits((x > 0) & (x < 6), axis=None, bitorder="little")
print(f"x             {x.nbytes:>7,} bytes")
print(f"2-bit codes   {two_bits:>7,} bytes")
print(f"1 bit, band   {band.nbytes:>7,} bytes")
assert (x.nbytes, two_bits, band.nbytes) == (903_168, 56_448, 28_224)
assert (relu6_slope(x) == ((y > 0) & (y < 6))).all()

# %% [markdown]
# The regions 0 and 2 have the same slope. So one bit, "is x between 0 and 6?", is enough, and it is
# exact: 28,224 bytes instead of 56,448 bytes.
#
# The last line of the cell says more: the *output* tells the same thing, 0 < y < 6. And y is the
# input of the next convolution, which keeps it anyway if its weight trains (tutorial 3). Then the
# activation needs **no memory of its own**. Before you keep a buffer, ask who has it already.
#
# ## Hard-Swish: 32 bits, or one
#
# Between -3 and 3 the slope is another number for every x. The exact rule therefore keeps x whole:
# 32 bits per element. MobileTL keeps one bit, "is x at least 0?", and takes
#
#     gx = gy 1[x >= 0]          (1[...] is 1 where it holds, else 0)
#
# which is wrong. How wrong? The shaded area is what it gets wrong: look how the two sides balance.

# %%
from course.figures import BLUE, RED, figure, finish

line = np.sort(
    np.append(np.linspace(-5, 5, 51), [-3 + 1e-9, -1e-9, 3 - 1e-9])
)  # both sides of a kink
fig, ax = figure(height=2.6)
ax.plot(line, hard_swish_slope(line), color=BLUE, label="exact slope")
ax.step(line, line >= 0, color=RED, where="post", label="sign rule")
ax.fill_between(line, hard_swish_slope(line), line >= 0, color=RED, alpha=0.15, linewidth=0)
finish(ax, "Slope of Hard-Swish, and MobileTL's one bit", "x", "slope", "upper left")
# %% [markdown]
# In numbers, region by region:

# %%
print("    region        exact slope   sign rule  mean of sign - exact  largest")
for low, high in [(-6, -3), (-3, -1.5), (-1.5, 0), (0, 1.5), (1.5, 3), (3, 6)]:
    inside = low + (high - low) * (np.arange(100_000) + 0.5) / 100_000
    exact, sign = hard_swish_slope(inside), inside >= 0
    first, last = np.round(exact[[0, -1]], 2) + 0
    print(
        f"{low:4.1f} to {high:4.1f}  {first:5.2f} to {last:5.2f}  {sign[0]:9d}"
        f"  {(sign - exact).mean():20.2f}  {abs(sign - exact).max():7.2f}"
    )
    assert abs(sign - exact).max() <= 0.5

# %% [markdown]
# Off by 1/2 at most, by nothing outside (-3, 3), and the mean differences cancel: from -3 to 3 both
# rules add up to the same rise, h(3) - h(-3) = 3. In fact 1[x >= 0] is the slope of *another*
# function, ReLU (but for x = 0): MobileTL runs Hard-Swish forward and ReLU backward.
#
# **A surrogate is not a derivative.** A backward rule that replaces the derivative on purpose is
# called a surrogate gradient (in spiking networks: Neftci et al. 2019, arXiv:1901.09948) or a
# straight-through estimator (Bengio et al. 2013, arXiv:1308.3432). Two things follow. A check by
# differences *must* fail on it; what can be tested is that it follows its own definition, and how
# far that is from the slope. And whether training works with it is a question for experiments
# (tutorial 8): calculus no longer promises that a small step downhill lowers the loss.

# %%
from course.differences import check_gradient  # tutorial 1's
from course.pieces import activation, activation_backward  # as tutorial 6 will use them


def forward(x, kept):
    return activation(x, "act", kept, "hard_swish", signs=True)


def backward(kept, gy):
    return activation_backward(kept, gy, "act")


x64, kept = rng.standard_normal((2, 5, 3, 7)), {}
forward(x64, kept)
gy = rng.standard_normal(x64.shape)
assert (backward(kept, gy) == gy * (x64 >= 0)).all()  # its own definition
passed = check_gradient(forward, backward, x64, rng)
print("does the sign rule pass the check by differences?", passed)
assert not passed

# %% [markdown]
# ## Is it the best single bit?
#
# Any one-bit rule has a border b and two levels: gx = gy times one number below b, another above.
# For a given b the best level of a side is the mean of h' there. So we can try all borders, and
# measure the squared error, the integral of (h'(x) - level)^2 over [-10, 10].
#
# With k bits there are 2^k levels. Outside (-3, 3) the slope is constant, which takes two of them;
# the other n = 2^k - 2 share the ramp. On an interval of width 6/n the ramp of slope 1/3 differs
# from its mean by (1/9) (6/n)^3 / 12 in square, and n of those make 2 / n^2. **Predict**: which
# border is best for one bit? How many bits make the error 49 times smaller than 1/2?

# %%
grid = (np.arange(200_000) + 0.5) / 10_000 - 10
h1 = hard_swish_slope(grid)


def error(levels):
    """Integral of (h' - levels)^2 over [-10, 10]."""
    return ((h1 - levels) ** 2).mean() * 20


def two_levels(border):
    """The best one-bit rule with that border."""
    return np.where(grid < border, h1[grid < border].mean(), h1[grid >= border].mean())


borders = np.linspace(-3, 3, 25)
errors = [error(two_levels(b)) for b in borders]
for b in (-1.5, -1, -0.5, 0, 0.5):
    print(f"border {b:4}: error {error(two_levels(b)):.3f}")
best = borders[np.argmin(errors)]
assert best == 0
assert abs(error(two_levels(0)) - 1 / 2) < 1e-6
assert abs(two_levels(0) - (grid >= 0)).max() < 1e-6  # and its levels are 0 and 1

# %% [markdown]
# The best border is 0 and its best levels are 0 and 1: the sign rule *is* the best one-bit rule.
# `minitl` has rules for 1, 2 and 4 bits that are best in the same sense (`few1`, `few2`, `few4`).
# We hand them gy = 1, so that gx shows the levels. (The next cell is the first to call minitl's
# kernels; the first time ever it takes some seconds, while Numba compiles them.)

# %%
import minitl


def slope_by_rule(x, rule):
    """What a rule of minitl's Hard-Swish multiplies gy by, at each x."""
    op, x = minitl.ops.hard_swish, x.reshape(-1, 1)
    _, saved = op.forward(x, needs=(True,), rule=rule)
    return op.backward(saved, np.ones_like(x), needs=(True,))[0].ravel()


few = {bits: error(slope_by_rule(grid, f"few{bits}")) for bits in (1, 2, 4)}
for bits, squared in few.items():
    print(f"bits {bits}: error {squared:.4f}")
assert abs(few[1] - 1 / 2) < 1e-4
assert abs(few[4] - 2 / 14**2) < 1e-4
assert few[2] < 2 / 2**2

# %% [markdown]
# With 4 bits, n = 14, the error is 1/98: 49 times smaller. With 2 bits, 2 / n^2 would be 1/2 again:
# there the kinks are not worth two of four levels, and better borders give half of that. Look on
# the left for how flat the minimum is, on the right for how fast the error falls with every bit.

# %%
fig, (left, right) = figure(2, height=2.8)
left.plot(borders, errors, color=BLUE)
left.plot(best, min(errors), "o", color=RED)
left.annotate("sign rule", (0, 0.5), (-0.9, 0.75), color=RED)
finish(left, "One bit: the best border", "border b", "squared error")
bits = np.arange(2.5, 5.01, 0.1)
right.plot(bits, 2 / (2**bits - 2) ** 2, color=BLUE, label="2 / n^2, n = 2^bits - 2")
right.plot(list(few), list(few.values()), "o", color=RED, label="minitl's rules")
finish(right, "More bits", "bits per element", "squared error", "upper right", yscale="log")
right.set_ylim(1.5e-3, 5)
# %% [markdown]
# ## Exact, for one bit
#
# Now the trick that ReLU6 taught: ask y. Between -3 and 3, y = x (x + 3) / 6 is a parabola, and from
# y one gets x back, but for one thing: the parabola folds at x = -3/2. Look at the picture: below 0
# two x have the same y, and one bit, "which side of -3/2?", tells them apart.

# %%
line = np.linspace(-4.5, 2, 196)
fig, ax = figure(height=2.8)
for color, part, label in [
    (RED, line <= -1.5, "bit 0: x < -3/2"),
    (BLUE, line >= -1.5, "bit 1: x >= -3/2"),
]:
    ax.plot(line[part], hard_swish(line[part]), color=color, label=label)
height = hard_swish(np.array(-0.6))
ax.plot([-2.4, -0.6], [height, height], "o--", color="black", linewidth=0.8)
ax.annotate("one y, two x", (-2.3, height + 0.04))
finish(ax, "Hard-Swish folds at -3/2", "x", "y = h(x)", "upper left", ylim=(-0.5, 1.2))
# %% [markdown]
# Solve 6 y = x^2 + 3 x for x, put it into (2x + 3) / 6, and the slope is
#
#     h' = + sqrt(9 + 24 y) / 6   on the right of -3/2,   - sqrt(9 + 24 y) / 6   on the left,
#
# with 1 where y >= 3 and 0 on the flat left end. (You write it in exercise 5b.) The next convolution
# keeps y. So the exact slope costs the bit alone: 28,224 bytes, MobileTL's price, and no error but
# rounding. In `minitl` this rule is called `output`. How much rounding? Near the fold the root
# is of a number near 0, and a relative error u of y becomes sqrt(u) of the slope: about 1e-4 in
# float32, where the slope is nearly 0.

# %%
for dtype, at_fold, elsewhere in [("float32", 1.3e-4, 1e-5), ("float64", 5e-9, 1e-13)]:
    x = np.linspace(-4, 4, 400_001).astype(dtype)
    off = abs(slope_by_rule(x, "output") - hard_swish_slope(x.astype(np.float64)))
    near = abs(x + 1.5) < 0.1
    assert off[near].max() < at_fold
    assert off[~near].max() < elsewhere
    print(f"{dtype}: within {at_fold:g} near the fold, within {elsewhere:g} elsewhere")

# %% [markdown]
# And the sign rule? Forward computes y = x relu6(x + 3) / 6 in this order, so a negative x gives a
# negative y, or the negative zero -0.0 where relu6 is 0. The sign bit of y therefore *is* the bit
# of MobileTL: where y is kept anyway, its rule costs nothing at all (`output-sign`).

# %%
x = np.array([-5, -3, -1, 0, 1], np.float32)
y = hard_swish(x)
print("x       ", x)
print("y       ", y)
print("sign bit", np.signbit(y).astype(int))
assert (np.signbit(y) == (x < 0)).all()

# %% [markdown]
# Here are all rules, weighed on the paper's map by the op itself, from shapes alone. "Kept by the
# next" is the output y: it costs nothing where the next convolution keeps it anyway. **Predict** the
# bytes of `few2` first.

# %%
print(f"{'op':11}{'rule':12}{'own bytes':>10}  and y?              slope")
own_bytes = {}
for op in (minitl.ops.relu6, minitl.ops.hard_swish):
    for rule in op.rules:
        kept = op.cost((SHAPE,), "float32", needs=(True,), rule=rule).kept
        own_bytes[op.name, rule] = sum(k.nbytes for k in kept if k.tensor != "y")
        also = "kept by the next" if any(k.tensor == "y" for k in kept) else ""
        slope = "approximate" if rule in op.approximate else "exact"
        print(f"{op.name:11}{rule:12}{own_bytes[op.name, rule]:>10,}  {also:18}  {slope}")
assert own_bytes["relu6", "codes"] == own_bytes["hard_swish", "few2"] == 56_448
assert own_bytes["relu6", "band"] == own_bytes["hard_swish", "output"] == 28_224
assert own_bytes["relu6", "output"] == own_bytes["hard_swish", "output-sign"] == 0
assert own_bytes["hard_swish", "exact"] == 903_168

# %% [markdown]
# One row is new: ReLU6's `sign` is MobileTL's bit again, "is x at least 0?", with which a gradient passes
# above 6 too. `band` takes as little and is exact.
#
# ## What you can now do
#
# Say for an activation what its backward needs, and look for it first in what is kept already; tell
# an exact rule from a surrogate, and test each the way it can be tested.
#
# ## Exercises
#
# Replace the `raise` line, run the cell, read what `check` says. `hint("5a")` helps, `hint("5a", 2)`
# helps more, and `solutions/05.py` has one way of doing it.
#
# **5a.** The exact backward of ReLU6, from the output.

# %%
from course import check


def relu6_backward_from_output(y, gy):
    """gx, from y = relu6(x) and gy, of one shape."""
    raise NotImplementedError  # yours


check("5a", relu6_backward_from_output)

# %% [markdown]
# **5b.** The exact slope of Hard-Swish from its output and one bit. Mind both ends, and that y is
# rounded.


# %%
def hard_swish_slope_from_output(y, side):
    """h'(x), from y = h(x) and the booleans side = (x >= -3/2), of one shape."""
    raise NotImplementedError  # yours


check("5b", hard_swish_slope_from_output)

# %% [markdown]
# **5c.** The best two levels for a border, this time without a grid: the mean of h' over an interval
# is an integral, and the integral of h' you know.


# %%
def best_levels(border):
    """The means of h' over [-10, border] and over [border, 10]."""
    raise NotImplementedError  # yours


check("5c", best_levels)

# %% [markdown]
# **5d.** On paper: take the border 0 and *any* levels a (below) and c (above). Write the squared
# error on [-10, 10] as a formula in a and c. Which a and c make it smallest, and how small is it?


# %%
def two_level_error(a, c):
    """The integral of (h'(x) - a)^2 over [-10, 0] plus that of (h'(x) - c)^2 over [0, 10]."""
    raise NotImplementedError  # yours


check("5d", two_level_error)

# %% [markdown]
# Next: [6, the block](06_the_block.py), where the pieces of 3, 4 and 5 meet.
#
# So how many bits per element does an activation need? None or one, if the next operation keeps its
# output; one for a surrogate; 32 only if nobody asks who has the output already.
