# %% [markdown]
# # 9. Why is the peak not what is kept, and what do checkpoints buy?
#
# *Needs: [2, the tape](02_the_tape.py) and [6, the block](06_the_block.py). Takes 30 minutes. Next:
# [10, plan and your own method](10_plan_and_your_own_method.py).*
#
# What is kept stays in memory between forward and backward. But a device runs out of memory at the
# *highest moment* of a step, and at that moment other things are alive as well: the input and the
# output of the operation that runs, gradients on their way, parameters. We replay a step on sizes,
# find its highest moment, and see what lowers it and what does not.
#
# ## A meter
#
# Nothing has to be computed for this: it is enough to say when each array is made and when it is
# let go. The meter notes how many bytes are alive after each time something is made.


# %%
class Meter:
    """Bytes alive, moment by moment."""

    def __init__(self):
        self.alive, self.moments = {}, []

    def make(self, name, size):
        """From now on `name` is alive."""
        self.alive[name] = size
        self.moments.append((name, sum(self.alive.values())))

    def free(self, name):
        """`name` is let go."""
        self.alive.pop(name, None)

    def peak(self):
        """The highest moment: what had just been made, and the bytes alive."""
        return max(self.moments, key=lambda moment: moment[1])


# %% [markdown]
# ## One block, replayed
#
# The V2 block of tutorial 6: maps of b = 150,528 bytes at both ends and 6 b inside. Each line says
# how large an operation's output is, and what it keeps under vanilla and under MobileTL. ("x" means
# its input, which it keeps as it is.)

# %%
B = 150_528  # bytes of the block's input
WIDE, BIT = 6 * B, 6 * B // 32
NORM = {"x_hat": WIDE, "inv_std": 576 * 4}

LAYERS = {  # output, kept by vanilla, kept by MobileTL
    "expand": (WIDE, {"x": 0}, {"x": 0}),
    "expand_norm": (WIDE, NORM, {}),
    "expand_act": (WIDE, {"codes": 2 * BIT}, {"mask": BIT}),
    "depthwise": (WIDE, {"x": 0}, {"x": 0}),
    "depthwise_norm": (WIDE, NORM, {}),
    "depthwise_act": (WIDE, {"codes": 2 * BIT}, {"mask": BIT}),
    "project": (B, {"x": 0}, {"x": 0}),
    "project_norm": (B, {"x_hat": B, "inv_std": 96 * 4}, {"x_hat": B, "inv_std": 96 * 4}),
}


# %% [markdown]
# Forward: the output is made *while the input still exists*; only then may the input go, unless it
# is kept. Backward: gx is made while gy still exists. The residual needs the block's input until
# the addition, and its gradient until the end. (Parameters and their gradients are left out here:
# they are small in a block.)


# %%
def replay(method):
    """The meter of one step of the block; `method` is 1 for vanilla, 2 for MobileTL."""
    meter, before = Meter(), "block's input"
    meter.make(before, B)
    for layer, keeps in ((layer, row[method]) for layer, row in LAYERS.items()):
        meter.make(f"{layer} y", LAYERS[layer][0])
        for tensor, size in keeps.items():
            if size:
                meter.make(f"{layer} {tensor}", size)
        if "x" not in keeps and before != "block's input":
            meter.free(before)
        before = f"{layer} y"
    meter.make("block's output", B)
    meter.free(before)
    meter.free("block's output")
    return meter


def replay_backward(meter, method):
    """The same meter, with the walk back; says at which moment it began."""
    turn, names, gy = len(meter.moments), list(LAYERS), "gy"
    meter.make("gy", B)
    for place in reversed(range(len(names))):
        layer, keeps = names[place], LAYERS[names[place]][method]
        below = names[place - 1] if place else ""
        meter.make(f"{layer} gx", LAYERS[below][0] if below else B)
        for tensor in keeps:
            meter.free(f"{below} y" if tensor == "x" else f"{layer} {tensor}")
        if gy != "gy":
            meter.free(gy)  # the block's gy is still needed, for the residual
        gy = f"{layer} gx"
    return turn


# %% [markdown]
# **Predict.** Vanilla keeps 4,031,616 bytes and MobileTL 2,164,224. Where is the highest moment, in
# the forward or in the backward pass, and how many b above what is kept?

# %%
METERS, TURNS = {}, {}
for method, name in ((1, "vanilla"), (2, "MobileTL")):
    METERS[name] = replay(method)
    kept = sum(METERS[name].alive.values())
    TURNS[name] = replay_backward(METERS[name], method)
    at, peak = METERS[name].peak()
    print(f"{name:9} kept {kept:>9,}, peak {peak:>9,} when {at} is made")
    assert peak == kept - (B + 96 * 4) + 8 * B == METERS[name].moments[TURNS[name] + 2][1]
    assert METERS[name].moments[TURNS[name]] == ("gy", kept + B)
assert (4_031_616 - 150_912 + 8 * B, 2_164_224 - 150_912 + 8 * B) == (5_084_928, 3_217_536)
assert B + 96 * 4 == 150_912

# %% [markdown]
# In both it is the backward of `project`. By then `project_norm` has let go of its 150,912 bytes; but
# gy (b) and gx (6 b) are there together, and so is the residual's gradient (b). So the peak is what
# is kept, less 150,912 bytes, plus 8 b.
#
# In the figure look at two things. Each staircase climbs in forward, is highest two moments after the
# turn, then comes down. And what is kept is not the highest point: at the dotted line, the turn,
# the staircase is at what is kept plus gy, one b.

# %%
from course.figures import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, figure

picture, axes = figure(height=3)
for (name, meter), colour in zip(METERS.items(), (GREY, RED), strict=True):
    heights = [alive / 1e6 for _, alive in meter.moments]
    moments = range(-TURNS[name], len(heights) - TURNS[name])
    axes.step(moments, heights, where="post", color=colour, label=name)
    top = heights.index(max(heights))
    axes.plot(moments[top], heights[top], "o", color=colour)
    axes.text(moments[top], heights[top] + 0.15, f"{max(heights):.2f}", ha="center", fontsize=8)
axes.axvline(0, color="#333333", linestyle=":", linewidth=1)
axes.set(xlabel="moment, from the turn", ylabel="alive (MB)", ylim=(0, 6))
axes.set_title("one block, one step: forward to the left, backward to the right")
_ = axes.legend(fontsize=8)

# %% [markdown]
# ## Three ways to a lower peak
#
# 1. *Write over what nobody needs.* The sign rule could write its gx into gy's own memory. A kept
#    buffer that has just been used for the last time is free room as well. `minitl` does so where
#    it can.
# 2. *Not all samples at a time.* Most operations treat each image by itself; only a batch norm
#    needs all of them at once. So several operations can be run for one image, then for the next,
#    and only one image's maps are in flight.
# 3. *Let gradients go.* A weight's gradient can be applied to the weight as soon as it is
#    complete, and freed: `tape.backward(loss, apply=optimizer)`.
#
# `predict` replays a whole step in this manner, for any network, with the very code that runs it: so
# its peak contains whatever `minitl` really does. Nothing is computed; it is a meter as above. (Each
# thread has scratch memory of its own, so a peak depends on how many there are; here two. And that
# memory holds whole tiles of a map, whose size is the processor's: a few figures may differ by a
# percent on yours.)

# %% tags=["about"]
import minitl

minitl.kernels.threads.set_threads(2)


def block_step(method, **options):
    """Totals of a step of the paper's V2 block, everything included."""
    block = minitl.networks.irb(activation="relu6", se_channels=0)
    minitl.methods.get(method, 1, **options).apply(block)
    return minitl.accounting.predict(block, batch=8, resolution=7).totals


lowest = block_step("mobiletl").peak_bytes
for method in ("ft-blocks", "mobiletl", "mobiletl-exact", "mobiletl-recompute"):
    totals = block_step(method)
    print(f"{method:20} kept {totals.kept_bytes:>9,}, peak {totals.peak_bytes:>9,}")
    assert totals.peak_bytes > totals.kept_bytes + totals.frozen_parameter_bytes
    assert totals.peak_bytes >= lowest

# %% [markdown]
# Note the last two: they keep less than MobileTL and do not peak lower. A rule that reads the slope
# off the kept output needs that output while the gradient is made; and to recompute a map is to
# have it again, for a moment. *Keeping less and peaking lower are two things.*
#
# ## A whole network
#
# MobileNetV2, 224x224, batch 8, 10 classes. **Predict.** `ft-bias` keeps a quarter of what
# `ft-blocks 5` keeps. Which of the two has the higher peak?


# %%
def step(network, method, blocks=None, **options):
    """Totals of a training step, from shapes alone."""
    minitl.methods.get(method, blocks, **options).apply(network)
    return minitl.accounting.predict(network, batch=8, resolution=224).totals


v2 = minitl.networks.mobilenet_v2(num_classes=10)
WAYS = [("ft-all", None), ("ft-bias", None), ("ft-blocks", 5), ("mobiletl", 5)]
WAYS += [("mobiletl-exact", 5), ("mobiletl-recompute", 5), ("ft-last", None)]
STEPS = {method: step(v2, method, blocks) for method, blocks in WAYS}
kept = {method: totals.kept_bytes for method, totals in STEPS.items()}
peak = {method: totals.peak_bytes for method, totals in STEPS.items()}
assert kept["ft-bias"] < 0.25 * kept["ft-blocks"]
assert peak["ft-bias"] > peak["ft-blocks"]
assert kept["ft-blocks"] > kept["mobiletl"] > kept["mobiletl-exact"] > kept["mobiletl-recompute"]

# %% tags=["about"]
picture, axes = figure(height=3)
for place, method in enumerate(STEPS):
    for values, colour, shift, label in ((peak, BLUE, -0.2, "peak"), (kept, RED, 0.2, "kept")):
        size = values[method] / 1e6
        inside = size > 100
        axes.barh(place + shift, min(size, 100), 0.4, color=colour, label=None if place else label)
        style = {"ha": "right", "color": "white"} if inside else {}
        where = 99 if inside else size + 1
        axes.text(where, place + shift, f"{size:.1f}", va="center", fontsize=8, **style)
names = [f"{method} {blocks or ''}" for method, blocks in WAYS]
axes.set_yticks(range(len(names)), names)
axes.set(xlabel="MB", xlim=(0, 100), title="MobileNetV2 (the bars of ft-all go on to the right)")
axes.invert_yaxis()
_ = axes.legend(fontsize=8, loc="lower right")

# %% [markdown]
# Three lessons are in this figure.
#
# - `ft-bias` keeps least of the methods that reach down to the stem, and peaks above `ft-blocks`: its
#   gradient must cross the large early maps, where gy and gx together are larger than all that it
#   keeps. ([Somebody who measured this](https://github.com/mit-han-lab/tinyml/issues/12) looked for
#   the mistake in the code.)
# - `ft-last` keeps 41,344 bytes and peaks at less than two thirds of the next, though its forward pass
#   is as wide as the others'. The widest map of MobileNetV2, 96 channels at 112x112, takes 38,535,168
#   bytes for eight images. But a *frozen* part keeps nothing and needs no batch, so `minitl` runs it
#   depth first: one image through all frozen blocks, then the next. That map is never there for all
#   eight.
# - So ask first *where* the highest moment is: in the frozen part (then take smaller images), at the
#   turn (then keep less), or deep in the backward pass (then tune fewer blocks).

# %%
assert kept["ft-last"] == 41_344
widest = 8 * 112 * 112 * 96 * 4
assert widest == 38_535_168 > peak["ft-last"]
assert peak["ft-last"] < 2 / 3 * sorted(peak.values())[1]

# %% [markdown]
# ## Checkpoints
#
# A checkpoint keeps the *input* of a block and nothing else; backward runs the block a second time
# (Chen et al. 2016, arXiv:1604.06174). **Predict.** On a single block: what is kept then, and does the
# peak fall?

# %%
plain, checked = block_step("ft-blocks"), block_step("ft-blocks", checkpoint=True)
print(f"kept {plain.kept_bytes:,} -> {checked.kept_bytes:,} bytes")
print(f"does the peak fall? {checked.peak_bytes < plain.peak_bytes}")
assert checked.kept_bytes == B == 150_528
assert checked.peak_bytes >= plain.peak_bytes

# %% [markdown]
# It does *not* fall. While the block is run again, everything it keeps is there again. One checkpoint
# buys nothing. Many do: then only one block at a time is there in full, and of the others just their
# inputs. All 17 blocks of MobileNetV2:

# %% tags=["about"]
print(f"{'':26}{'kept MB':>9}{'peak MB':>9}{'GFLOPs':>9}")
for method, blocks in (("ft-all", None), ("ft-blocks", 5), ("mobiletl", 5)):
    for options in ({}, {"checkpoint": True}):
        t = step(v2, method, blocks, **options)
        name = f"{method} {blocks or ''}" + (" checkpointed" if options else "")
        numbers = (t.kept_bytes / 1e6, t.peak_bytes / 1e6, t.flops.total / 1e9)
        print(f"{name:26}" + "".join(f"{number:9.2f}" for number in numbers))

whole, saved = STEPS["ft-all"], step(v2, "ft-all", checkpoint=True)
assert saved.kept_bytes < whole.kept_bytes / 8
assert saved.peak_bytes < whole.peak_bytes / 2
assert 1.25 < saved.flops.total / whole.flops.total < 4 / 3

# %% [markdown]
# Nearly a third more work, for less than half the peak. The bill is one forward pass more: forward,
# forward again, backward, which costs about two; so 4/3 at most.
#
# This is MobileTL's honest rival: fine-tuning the same five blocks with checkpoints keeps less than
# MobileTL and peaks lower, with exact gradients and batch statistics. It pays in work, on every
# step; MobileTL pays in exactness, and in norms that no longer adapt. And the two combine: the last
# line. `mobiletl-recompute` stands between them. It runs only the first part of a block again, from
# expand to the depthwise convolution. The norm in there is frozen, so the numbers are the same, to the
# bit, and no running statistics move twice: about a fifth more work for a block.

# %%
rival, ours = step(v2, "ft-blocks", 5, checkpoint=True), STEPS["mobiletl"]
assert rival.kept_bytes < ours.kept_bytes
assert rival.peak_bytes < ours.peak_bytes
assert rival.flops.total > 1.1 * ours.flops.total
again = block_step("mobiletl-recompute").flops.total / block_step("mobiletl").flops.total
assert 1.2 < again < 1.25

# %% [markdown]
# How many checkpoints are best? Let 16 equal blocks keep 1 unit each, and a block's input be 1/27 of
# it (as in the vanilla V2 block). Cut into k segments, we hold k inputs, and one segment in full. In
# the figure look where the lowest point is.

# %%
picture, axes = figure(height=2.6)
segments = range(1, 17)
heights = [k / 27 + -(-16 // k) for k in segments]
axes.plot(segments, heights, "o-", color=PURPLE, markersize=4, label="k inputs + one segment")
axes.plot(segments, [k / 27 for k in segments], color=YELLOW, label="k inputs")
axes.axhline(16, color=GREEN, linestyle="--", label="no checkpoints")
axes.set(xlabel="segments k", ylabel="units", ylim=(0, 17.5), title="16 equal blocks in k segments")
_ = axes.legend(fontsize=8)
assert heights.index(min(heights)) + 1 == 16

# %% [markdown]
# It is the right end: a checkpoint for each block, because its input is so much smaller than what it
# keeps. Were an input as large as what a block keeps, the best k would be about the square root of the
# number of blocks (exercise 9c).
#
# ## Predicted, held, traced
#
# Is all this true of a real step? `measure` runs one, and asks Python's allocator. (The first time,
# kernels are compiled.)

# %% tags=["volatile"]
net = minitl.methods.get("ft-all").apply(minitl.networks.digits_irb(num_classes=5))
real = minitl.accounting.measure(net, batch=8, resolution=16)
print(f"kept: held by the tape {real.held_bytes:,}, traced {real.traced_bytes:,}")
print(f"peak: predicted {real.predicted_peak_bytes:,}, traced {real.traced_peak_bytes:,}")
assert real.held_bytes == real.traced_bytes
assert 0 <= real.predicted_peak_bytes - real.traced_peak_bytes < 16_000

# %% [markdown]
# What is kept agrees to the byte. The peak predicted is never below the one traced, and a few kilobytes
# above it at most, for it reserves 8 kB for vectors of a number per channel that come and go. Both
# count NumPy's arrays; Python and its own objects come on top, so leave them some room when you plan.
#
# ## What you can now do
#
# Find the highest moment of a step, say what it consists of, and choose what to do about it. From
# here on, *budget* means peak.
#
# ## Exercises
#
# **9a.** `events` is a list of `("make", name, bytes)` and `("free", name)`. Return the highest number
# of bytes alive at any moment.

# %%
from course import check


def peak_of(events):
    """Bytes at the highest moment; 0 if nothing is ever made."""
    raise NotImplementedError  # yours


check("9a", peak_of)

# %% [markdown]
# **9b.** A checkpoint around any block. `forward(x, p, rerun)` gives `(y, kept)`, with `kept` a
# dictionary of arrays; with `rerun=True` it leaves running statistics alone. `backward(kept, gy, p)`
# gives the gradients. Return a pair of functions with the same signatures that give the same results
# but keep x alone, under the name "x".


# %%
def checkpoint(forward, backward):
    """(forward, backward) of the same block, keeping only {"x": x}."""
    raise NotImplementedError  # yours


check("9b", checkpoint)

# %% [markdown]
# **9c.** `n` equal blocks are cut into k segments as equal as can be. A segment's input takes `x`
# bytes, and all k of them are kept. One segment at a time is run again, and then keeps `inside`
# bytes per block. So the peak is k x + inside (blocks of the largest segment). Return the k from 1 to n
# with the lowest peak; if several are equal, the smallest k.


# %%
def best_segments(n, x, inside):
    """How many segments."""
    raise NotImplementedError  # yours


check("9c", best_segments)

# %% [markdown]
# Next: [10, plan and your own method](10_plan_and_your_own_method.py).
#
# *The peak is what is kept plus what is in flight at the worst moment; checkpoints trade a forward
# pass for all of what is kept but the blocks' inputs, and pay only where there are many.*
