# %% [markdown]
# # 11. Is my own kernel right?
#
# *Needs: [5, activations in bits](05_activations_in_bits.py); for the last part [6, the
# block](06_the_block.py). Takes 25 minutes. Next: the epilogue, [12, fast](12_fast.py).*
#
# You have written one of these operations yourself, in NumPy, PyTorch, C, or for a
# microcontroller. Forward looks plausible, training seems to work, and that means little: a
# gradient that is wrong at a border, or at a kink, still goes downhill most of the time. `minitl`
# has an *oracle*: small cases with true results and, for each element, a bound on what rounding may
# do. This tutorial asks it, gets it wrong on purpose, and reads the answers.
#
# ## A case
#
# On the command line, `minitl oracle list` names all cases. In Python:

# %%
import minitl.oracle
import numpy as np

from course.pieces import hard_swish, hard_swish_slope

names = [entry.name for entry in minitl.oracle.entries()]
print("for instance", ", ".join(name for name in names if name.startswith("hard_swish-few")))
case = next(minitl.oracle.cases("hard_swish-sign"))
print(case.op, case.attrs)
for name, array in case.tensors.items():
    print(f"  {name:20} {array.dtype!s:8} {array.shape}")
assert len(names) > 90

# %% [markdown]
# `case.inputs` are what an implementation gets: `input.x` and `grad_output`, which this course
# calls x and gy. `output`, `grad_input.x` and `kept.mask` are what is expected, computed in float64.
# The `tol` tensors are the bounds: one number *per element*, for float16, float32 and float64
# results.
#
# The shapes are odd and unequal, and there are values exactly on a kink: 0 for the sign rule, -3 and
# 3 for Hard-Swish. Faults like to hide there.
#
# ## Right
#
# An implementation is a function from a case to a dictionary of what it found. Here is MobileTL's
# Hard-Swish, in NumPy. The parts that are easy to get wrong are arguments, so that we can break each
# by itself:


# %%
def pack(bits):
    """(N, H, W, C) to packed bytes, along the positions of a channel."""
    return np.packbits(bits.reshape(-1, bits.shape[-1]), axis=0, bitorder="little")


def answer(case, bits=lambda x: x >= 0, pack=pack, slope=lambda x: x >= 0):
    """MobileTL's Hard-Swish; each argument is a part that can be wrong."""
    x, gy = case.inputs["input.x"], case.inputs["grad_output"]
    return {"output": hard_swish(x), "grad_input.x": gy * slope(x), "kept.mask": pack(bits(x))}


def show(report):
    """What is wrong, and the likely cause; or how much of the bound was used."""
    if report.ok:
        print(f"{report.case}: ok, largest error / bound {report.worst:.2f}")
    for line in report.lines:
        if not line.ok:
            print(f"{line.tensor} is wrong\n    likely: {line.cause or '(no cause is named)'}")


report = case.compare(answer(case))
show(report)
assert report.ok

# %% [markdown]
# "error / bound" is how much of the allowed rounding was used by the worst element: below 1 is
# right. (`print(report)` says more: where, what was expected, how many, and how far off in ULP, units in
# the last place. `case.check` does the same as `compare`, and raises where something is wrong: one line
# in a test suite of your own.)
#
# ## Wrong, four times
#
# Before each of the next four, say what you would expect to be reported. First the classic: `x > 0`
# for `x >= 0`, in the mask and in the gradient.

# %%
wrong = {"x > 0": answer(case, bits=lambda x: x > 0, slope=lambda x: x > 0)}
show(case.compare(wrong["x > 0"]))

# %% [markdown]
# A few elements of 150 are wrong, all of them where x is 0. A test with random data alone would
# never have met one. (Where several mistakes give the same numbers, all are named.)
#
# Second: NumPy's `packbits` puts the first position into the *highest* bit, unless told otherwise.
# Third: packing a map as it lies in memory, along the channels.

# %%
wrong["big-endian"] = answer(
    case, pack=lambda bits: np.packbits(bits.reshape(-1, bits.shape[-1]), axis=0)
)
wrong["flat"] = answer(case, pack=lambda bits: np.packbits(bits, bitorder="little"))
for name in ("big-endian", "flat"):
    show(case.compare(wrong[name]))

# %% [markdown]
# Fourth: everything is right, and of the wrong method. Backward multiplies by the true slope.

# %%
wrong["exact slope"] = answer(case, slope=hard_swish_slope)
show(case.compare(wrong["exact slope"]))
for name, results in wrong.items():
    assert not case.compare(results).ok, name
    assert any(line.cause for line in case.compare(results).lines), f"no cause: {name}"

# %% [markdown]
# The causes are no guesses from a list of words. The oracle *computes* what each usual mistake would
# give, and names it only where its numbers are those that came; the rules `exact` and `output` are one
# slope, computed from x and from y, so both are named here. `check`, which looks at your exercises in
# this course, works in the same way.
#
# ## Why not simply `np.allclose`?
#
# A tolerance is one number for all elements, and any number is wrong in both ways. Take a
# convolution, 1x1, in float32, computed in three orders of summation, each as good as the others;
# and once with a fault: a channel left out at a single position.

# %%
case = next(minitl.oracle.cases("pointwise_conv-project"))
x, w = case.inputs["input.x"], case.inputs["param.weight"][:, :, 0, 0]
gy, channels = case.inputs["grad_output"], w.shape[1]


def summed(order):
    """The convolution, one input channel after the other, in float32."""
    y = np.zeros((*x.shape[:-1], len(w)), x.dtype)
    for c in order:
        y += x[..., c : c + 1] * w[:, c]
    return y


shuffled = np.random.default_rng(0).permutation(channels)
kernels = {"first to last": summed(range(channels)), "last to first": summed(range(channels)[::-1])}
kernels |= {"shuffled": summed(shuffled), "a fault": summed(range(channels))}
smallest = abs(x[0, 1, 1, :, None] * w.T).sum(axis=1).argmin()
kernels["a fault"][0, 1, 1] -= x[0, 1, 1, smallest] * w[:, smallest]

# %%
bound, truth = case.tolerance("output", "float32"), case.tensors["output"]
used = {name: abs(y - truth) / bound for name, y in kernels.items()}
for name, share in used.items():
    verdict = "right" if share.max() <= 1 else "WRONG"
    print(f"{name:14} {verdict}  {(share > 1).sum()} of {share.size} elements out of bound")
assert max(used[name].max() for name in list(used)[:3]) <= 1 < used["a fault"].max()

# %% [markdown]
# Where does a bound come from? Each operation may be off by u = 2^-24 of its result, in float32;
# the oracle carries that error forward, operation by operation, with the sizes of what is summed.
# So an element that is a sum of large terms gets a large bound, and one of small terms a small one,
# and the order of the sum does not matter.
#
# In the figure each curve is a kernel, with its elements from the best to the worst: look at how far
# the red one is above the line, which is the bound, and how far below it the others stay.

# %% tags=["volatile"]
from course.figures import BLUE, CYAN, GREEN, RED, figure

picture, axes = figure(height=3)
for (name, share), colour in zip(used.items(), (BLUE, CYAN, GREEN, RED), strict=True):
    axes.plot(np.maximum(np.sort(share.ravel()), 1e-3), color=colour, label=name)
axes.axhline(1, color="#333333", linewidth=1)
axes.set(yscale="log", xlabel="element, by its error", ylabel="error / bound")
axes.set(title="three orders of summation, and a fault at one position")
_ = axes.legend(fontsize=8)

# %% [markdown]
# The same kernel in float16 errs more than three thousand times as much (root of the mean square), and
# is right all the same, by the bound for float16. Nothing has to be tuned:

# %%
y16 = (x.astype(np.float16).astype(np.float64) @ w.astype(np.float16).T.astype(np.float64)).astype(
    np.float16
)
rms = [np.sqrt(np.mean((y - truth) ** 2)) for y in (kernels["first to last"], y16)]
print(f"error in float16 / error in float32: {round(rms[1] / rms[0], -2):.0f}")
for dtype in ("float16", "float32"):
    share = (abs(y16 - truth) / case.tolerance("output", dtype)).max()
    print(f"float16 result, bound for {dtype}: {'right' if share <= 1 else 'WRONG'}")
    assert (share <= 1) == (dtype == "float16")

# %% [markdown]
# ## A whole block
#
# The cases `irb-METHOD-...` are whole blocks: every gradient, every kept buffer, and the running
# statistics after the step. Is the block of tutorial 6 right? Its names are those of the oracle.

# %%
from course.block import backward, forward

block = next(minitl.oracle.cases("irb-mobiletl-hard_swish-k3-s1"))
p = {
    name.split(".", 1)[1]: a
    for name, a in block.inputs.items()
    if name.startswith(("param.", "buffer."))
}
y, kept = forward(block.inputs["input.x"], p, kind="hard_swish", shift_only=True, signs=True)
grads = backward(kept, block.inputs["grad_output"], p)
results = {"output": y, "grad_input.x": grads.pop("x")}
results |= {f"grad_param.{name}": gradient for name, gradient in grads.items()}
results |= {f"kept.{name}": array for name, array in kept.items()}
show(block.compare(results))

# %% [markdown]
# All but two: tutorial 6 left the running statistics of the last norm alone, "no gradient depends
# on that". The oracle insists, and it is right, for the next task will be evaluated with them.
# With momentum m, over M values: mean <- (1 - m) mean + m mean(h), and likewise for the variance
# times M / (M - 1) (tutorial 4).

# %% tags=["volatile"]
projected = kept["project.x"] @ p["project.weight"][:, :, 0, 0].T
values, m = projected.reshape(-1, projected.shape[-1]), block.attrs["momentum"]
for name, now in (("mean", values.mean(axis=0)), ("var", values.var(axis=0, ddof=1))):
    old = p[f"project_norm.running_{name}"]
    results[f"buffer_after.project_norm.running_{name}"] = (1 - m) * old + m * now
report = block.compare(results)
show(report)
assert report.ok

# %% [markdown]
# ## From another language
#
# PyTorch needs one change: `torch.from_numpy` on the way in; tensors may be returned as they are. C
# goes through files: `minitl oracle export DIR CASE --format c` writes a header with inputs, true
# results and bounds, and a `check.c` that compares. Both are shown, ready to copy, in
# [Check your implementation in five minutes](check_your_implementation.md). `minitl oracle spec`
# prints the written specification: formulas, kinks, layouts, packing, enough to implement from
# without reading anybody's code.
#
# ## What you can now do
#
# Say that a kernel is right, to the element, in any precision; and where it is not, read off which
# of the usual mistakes it was.
#
# ## Exercises
#
# **11a.** The exact backward of Hard-Swish, to pass the case `hard_swish-exact`, kinks included.

# %%
from course import check


def hard_swish_exact_backward(x, gy):
    """gx, of the shape and dtype of x."""
    raise NotImplementedError  # yours


check("11a", hard_swish_exact_backward)

# %% [markdown]
# **11b.** Pack 2-bit codes (0 to 3) of a map (N, H, W, C), without `minitl` and `pack`: four
# positions of a channel go into one byte, the first into the lowest bits. With M = N H W positions
# the result is (ceil(M / 4), C), uint8.


# %%
def pack_codes(codes):
    """uint8 (ceil(M / 4), C)."""
    raise NotImplementedError  # yours


check("11b", pack_codes)

# %% [markdown]
# **11c.** The heart of the oracle: `expected`, `bound` and `got` are dictionaries of arrays by name.
# Return the sorted names of the tensors that are wrong: missing from `got`, of another shape, not
# finite somewhere, or further from `expected` than `bound` in any element.


# %%
def wrong_tensors(expected, bound, got):
    """A sorted list of names."""
    raise NotImplementedError  # yours


check("11c", wrong_tensors)

# %% [markdown]
# Next: the epilogue, [12, fast](12_fast.py).
#
# *It is right if every element is within the bound that its own arithmetic allows; and if not, the
# oracle says which element, and usually why.*
