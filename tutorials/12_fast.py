# %% [markdown]
# # 12. Why is the fused path faster, with the same bytes kept?
#
# *Epilogue. Needs: [6, the block](06_the_block.py) and [9, peak](09_peak.py). Takes 25 minutes.*
#
# Run `minitl.Tape(fused=False)` and every operation of a block runs by itself: the readable way.
# Run `minitl.Tape()` and the block runs as a whole, faster. The arithmetic is the same, and so is
# what is kept. What differs is how often the maps travel between memory and processor.
#
# ## Work and traffic
#
# An operation does some floating-point operations (FLOPs) and moves some bytes: its input and
# weights in, its output out. The ratio says which of the two will limit it. Here are the operations
# of the paper's block (96 -> 576 -> 96, 7x7, batch 8, float32). **Predict.** For which of them does
# the processor do more than ten FLOPs per byte?

# %%
N, SMALL, LARGE = 8 * 7 * 7, 96, 576  # positions, channels outside and inside
B, WIDE = 4 * N * SMALL, 4 * N * LARGE  # bytes of the two maps


def pointwise(inputs, outputs):
    """FLOPs and bytes of a 1x1 convolution: 2 FLOPs per multiply-add."""
    return 2 * N * inputs * outputs, 4 * (N * inputs + inputs * outputs + N * outputs)


def depthwise(kernel):
    """The same of a depthwise convolution."""
    return 2 * N * LARGE * kernel**2, 2 * WIDE + 4 * LARGE * kernel**2


def elementwise(per_element):
    """The same of an operation on each element of a wide map."""
    return per_element * N * LARGE, 2 * WIDE


OPS = {"expand": pointwise(SMALL, LARGE), "project": pointwise(LARGE, SMALL)}
OPS |= {"depthwise 5x5": depthwise(5), "depthwise 3x3": depthwise(3)}
OPS |= {"Hard-Swish": elementwise(5), "frozen norm": elementwise(2), "gate x": elementwise(1)}
print(f"{'':15}{'MFLOP':>8}{'MB':>7}{'FLOP/byte':>11}")
for name, (flops, moved) in OPS.items():
    print(f"{name:15}{flops / 1e6:8.2f}{moved / 1e6:7.2f}{flops / moved:11.3f}")
assert OPS["expand"] == (43_352_064, 1_274_880)
assert OPS["depthwise 5x5"] == (11_289_600, 1_863_936)
assert OPS["frozen norm"][0] / OPS["frozen norm"][1] == 0.25

# %% [markdown]
# The pointwise convolutions do 34 FLOPs per byte, a norm 1/4. The norms and activations do hardly
# anything; they *move*.
#
# ## Two roofs
#
# How many FLOPs per byte would be in balance? That depends on the machine. We measure two things on
# yours: how fast a large matrix product computes, and how fast a large copy moves. (Times vary; the
# best of several is the one least disturbed.)

# %% tags=["volatile"]
import time

import numpy as np


def seconds(run, times=30):
    """The best of several runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


rng = np.random.default_rng(0)
a = rng.standard_normal((768, 768), np.float32)
source, target = np.ones((2, 8_000_000), np.float32)
compute = 2 * 768**3 / seconds(lambda: a @ a)
bandwidth = 2 * source.nbytes / seconds(lambda: np.copyto(target, source))
print(f"{compute:.1e} FLOP/s, {bandwidth:.1e} bytes/s")
print(f"balance at {compute / bandwidth:.1f} FLOP/byte")

# %% [markdown]
# Now the picture that goes with it, the *roofline* (Williams et al. 2009, DOI
# 10.1145/1498765.1498785): an operation can be no faster than the lower of the two roofs. Look at
# which operations stand under the slanting roof: no faster arithmetic will help them. (Where your dots
# stand depends on your machine, and a busy one has lower roofs.)

# %% tags=["volatile"]
from course.figures import BLUE, CYAN, GREEN, GREY, PURPLE, RED, YELLOW, figure

picture, axes = figure(height=3.2)
across = np.geomspace(0.06, 100, 60)
axes.plot(across, np.minimum(across * bandwidth, compute) / 1e9, color="#333333")
for name, (flops, moved) in OPS.items():
    if name == "project":
        continue  # where expand is
    height = min(flops / moved * bandwidth, compute) / 1e9
    label = "expand, project" if name == "expand" else name
    away, side = ((-8, 3), "right") if name == "depthwise 3x3" else ((6, -12), "left")
    axes.plot(flops / moved, height, "o", color=BLUE if "depth" in name else RED)
    place = {"textcoords": "offset points", "xytext": away, "fontsize": 8, "ha": side}
    axes.annotate(label, (flops / moved, height), **place)
axes.set(xscale="log", yscale="log", xlabel="FLOP per byte", ylabel="GFLOP/s at most")
axes.set(xlim=(0.06, 300), title="where memory is the limit, and where arithmetic is")
axes.set(ylim=(None, 4 * compute / 1e9))
for ticks in (axes.set_xticks, axes.set_yticks):
    ticks([1, 10, 100], ["1", "10", "100"])
axes.minorticks_off()

# %% [markdown]
# ## The cure: do more before you move on
#
# Nothing forces us to carry a wide map to memory and back between a convolution, its norm and its
# activation. Take one image: its wide map is 112,896 bytes, and stays in the processor's own memory
# (its cache), while that of all eight, 903,168 bytes, is pushed out sooner. So run expand, norm,
# activation, depthwise, norm, activation and project for the first image, then for the next. What
# still has to reach memory is the block's input and output, the weights, and *what is kept*.
#
# **Predict.** Under MobileTL two wide maps and two masks are kept. How much less moves?

# %%
MASK = WIDE // 32
WEIGHTS = {"expand": 4 * SMALL * LARGE, "depthwise": 4 * LARGE * 25, "project": 4 * SMALL * LARGE}
OP_BY_OP = {"expand": OPS["expand"][1], "expand_norm": 2 * WIDE, "expand_act": 2 * WIDE + MASK}
OP_BY_OP |= {"depthwise": OPS["depthwise 5x5"][1], "depthwise_norm": 2 * WIDE}
OP_BY_OP |= {"depthwise_act": 2 * WIDE + MASK, "project": OPS["project"][1]}
FUSED = {"expand": B + WEIGHTS["expand"], "expand_act": WIDE + MASK}
FUSED |= {"depthwise": WEIGHTS["depthwise"], "depthwise_act": WIDE + MASK}
FUSED |= {"project": WEIGHTS["project"] + B}
whole, fused = sum(OP_BY_OP.values()), sum(FUSED.values())
print(f"op by op {whole:,} bytes, fused at least {fused:,}: {whole / fused:.1f} times less")
assert (whole, fused) == (11_695_488, 2_663_808)
assert (WIDE // 8, WIDE) == (112_896, 903_168)

# %% [markdown]
# In the figure look at what is left of the fused bar: mostly the two maps that are kept, which must
# be written whatever one does. The rest has gone. (That keeping less makes a step *faster* as well
# is no accident.)

# %%
picture, axes = figure(height=1.9)
COLOURS = dict(zip(OP_BY_OP, (BLUE, RED, YELLOW, CYAN, PURPLE, GREEN, GREY), strict=True))
for place, moved in enumerate((OP_BY_OP, FUSED)):
    left = 0
    for name, colour in COLOURS.items():
        width = moved.get(name, 0) / 1e6
        axes.barh(place, width, left=left, color=colour, label=None if place else name)
        left += width
    axes.text(left + 0.1, place, f"{left:.2f}", va="center", fontsize=8)
axes.set_yticks([0, 1], ["op by op", "fused"])
axes.set(
    xlabel="moved in the forward pass (MB)", xlim=(0, 17.5), title="the paper's block, MobileTL"
)
axes.invert_yaxis()
_ = axes.legend(fontsize=8, loc="center right")

# %% [markdown]
# ## What stops it
#
# A batch norm with the batch's own statistics does: its mean is known only when *all* images have
# been through the convolution before it. There the loop over images has to end, everything waits,
# and another loop begins. Vanilla fine-tuning has three such places in each block. MobileTL's frozen
# inner norms have none, so expand to project is one loop: the same choice that keeps less lets more
# be fused.
#
# ## Same records, same bytes, same numbers
#
# After a fused step the tape holds what the operations would have left one by one, and the
# gradients are the same to the bit: all sums are taken in one fixed order, fused or not, on any
# machine and any number of threads. (The first time, kernels are compiled: up to half a minute.)

# %%
import minitl


def one_step(method, fused):
    """The records, kept bytes and gradients of a step of a block."""
    net = minitl.networks.irb(in_channels=16, expanded_channels=48, out_channels=16, seed=3)
    minitl.methods.get(method, 1).apply(net)
    tape = minitl.Tape(fused=fused)
    images = np.random.default_rng(1).standard_normal((4, 7, 7, 16), np.float32)
    y = net(tape, images)
    records = [(record.layer, record.name) for record in tape.records]
    kept = minitl.accounting.ledger(tape).kept_bytes
    gy = np.random.default_rng(2).standard_normal(y.value.shape, np.float32)
    return records, kept, tape.backward(y, gy)


for method in ("ft-blocks", "mobiletl", "mobiletl-exact"):
    (records, kept, ours), (others, held, theirs) = (one_step(method, f) for f in (True, False))
    assert records == others
    assert kept == held
    for name, gradient in ours.items():
        assert np.array_equal(gradient, theirs[name]), name
    print(f"{method:15} the same {len(records)} records, {kept:,} bytes, gradients to the bit")

# %% [markdown]
# ## And is it faster?
#
# Here are times of a whole step, forward and backward, on this machine at this moment: on one thread,
# by turns, the best of 30. They are printed and not asserted: another machine, or a busy one, has others.
# `minitl bench` measures at length, and beside PyTorch where that is installed.

# %% tags=["volatile"]
minitl.kernels.threads.set_threads(1)
net = minitl.networks.irb()
x = rng.standard_normal((8, 7, 7, 96), np.float32)


def whole_step(fused):
    """Forward and backward of the paper's block."""
    tape = minitl.Tape(fused=fused)
    y = net(tape, x)
    tape.backward(y, x)


for method in ("ft-blocks", "mobiletl"):
    minitl.methods.get(method, 1).apply(net)
    turns = [[seconds(lambda f=f: whole_step(f), 1) for f in (True, False)] for _ in range(30)]
    for name, times in zip(("fused", "op by op"), zip(*turns, strict=True), strict=True):
        print(f"{method:10} {name:9} {min(times):.1e} s")

# %% [markdown]
# The traffic fell to less than a quarter, the time by far less. Why? expand and project stand under the
# flat roof, and their arithmetic is the same either way. Most of a step is spent there; fusing can win
# back only what the others wait for.
#
# ## What you can now do
#
# Tell from two numbers whether an operation is limited by arithmetic or by memory, and what fusing
# can win; and you know why the loop over samples must end at a batch norm.
#
# ## Exercises
#
# **12a.** A chain of operations, `ops`, each a dictionary: `out` (bytes of its output), `weights`
# (bytes), `mask` (how many *bits* it writes), `keeps_input` (whether its input must reach memory for
# backward). `first` is the size of the chain's input. Return the bytes moved. Op by op each reads
# its input and weights, and writes output and mask. Fused, only this moves: the chain's input, all
# weights, masks, the last output, and each inner input that is kept, written once. (Masks are whole
# bytes here; the chain's input is in memory already.)

# %%
from course import check


def traffic(first, ops, fused):
    """Bytes moved by the forward pass of the chain."""
    raise NotImplementedError  # yours


check("12a", traffic)

# %% [markdown]
# **12b.** How many images at a time? An operation of the chain needs its input and its output at the
# same moment, `inner` bytes each per image, and all the `weights`, once. Return the largest number of
# images whose maps fit a cache of `cache` bytes together with the weights; never less than 1, never
# more than `batch`.


# %%
def images_at_a_time(inner, weights, cache, batch):
    """A number of images from 1 to batch."""
    raise NotImplementedError  # yours


check("12b", images_at_a_time)

# %% [markdown]
# **12c.** Run `f` on tiles of at most `tile` images and gather the results: `f` takes (n, H, W, C) to
# (n, H', W', C'), each image by itself. Then time `x * np.clip(x + 3, 0, 6) / 6` on a batch of 64
# maps, at once and in tiles. Which tile is fastest on your machine?


# %%
def in_tiles(f, x, tile):
    """f(x), computed `tile` images at a time."""
    raise NotImplementedError  # yours


check("12c", in_tiles)

# %% [markdown]
# You have come to the end of the course. What to do next: adapt a network of your own with
# `minitl train`, write a method, or write the kernels for a device, with the oracle beside you.
#
# *The fused path does the same arithmetic on data that are still at hand; what it cannot save is
# what must be kept.*
