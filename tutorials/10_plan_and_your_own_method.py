# %% [markdown]
# # 10. What can I tune on this device, and what if no method does what I want?
#
# *Needs: [9, peak](09_peak.py). Takes 30 minutes. Next: [11, the oracle](11_the_oracle.py).*
#
# A device has a budget. The budget is for the *peak* (tutorial 9), and it decides which method, on
# how many blocks, can run at all. First we plan under a budget. Then, where no method of the list
# does what we want, we add one: seven lines, in which not a word is said about memory.
#
# ## A planner in ten lines
#
# MobileNetV3-Small, images of 224x224, batch 8, 10 classes, and 30 MB for a step. `predict` needs
# shapes only, so trying every method with every number of blocks takes a few seconds. (Each thread has
# scratch memory of its own, so we say how many the device has: two.)

# %%
import minitl
import numpy as np

from course.figures import BLUE, GREEN, GREY, PURPLE, RED, YELLOW, figure

minitl.kernels.threads.set_threads(2)
BUDGET = 30_000_000
COLOURS = {"ft-blocks": GREY, "mobiletl": RED, "mobiletl-exact": PURPLE, "mobiletl-recompute": BLUE}


def step(net, method, blocks, batch=8, resolution=224, **options):
    """Totals of a training step, from shapes alone, and how many numbers it trains."""
    minitl.methods.get(method, blocks, **options).apply(net)
    totals = minitl.accounting.predict(net, batch=batch, resolution=resolution).totals
    return totals, sum(parameter.size for parameter in net.trained_parameters().values())


net = minitl.networks.mobilenet_v3_small(num_classes=10)
WAYS = []  # peak, trained, method, blocks
for method in COLOURS:
    for blocks in range(1, len(net.blocks) + 1):
        totals, trained = step(net, method, blocks)
        WAYS.append((totals.peak_bytes, trained, method, blocks))

# %% [markdown]
# **Predict.** Which method trains the most numbers within 30 MB of peak, and on how many of the 11
# blocks?

# %% tags=["about"]
fitting = [way for way in WAYS if way[0] <= BUDGET]
best = max(fitting, key=lambda way: (way[1], -way[0]))
more = min(way for way in WAYS if way[1] > best[1])
print(f"{'':26}{'peak bytes':>12}{'trained':>12}")
for name, (peak, trained, method, blocks) in {"best": best, "next step up": more}.items():
    print(f"{name:13}{method} {blocks:<3}{peak:>12,}{trained:>12,}")
for method in COLOURS:
    most = max((way[3] for way in fitting if way[2] == method), default=0)
    print(f"{method:20} fits on {most} block{'' if most == 1 else 's'}")
assert best[0] <= BUDGET < more[0]
assert best[2] == "mobiletl-recompute"

# %% [markdown]
# In the figure look along the dashed line: where a method's curve crosses it, it runs out.

# %% tags=["about"]
picture, axes = figure(height=3.2)
for method, colour in COLOURS.items():
    points = [(way[0] / 1e6, way[1] / 1e6) for way in WAYS if way[2] == method]
    axes.plot(*zip(*points, strict=True), "o-", color=colour, markersize=4, label=method)
axes.axvline(BUDGET / 1e6, color=GREEN, linestyle="--", label="budget")
axes.set(xscale="log", xlabel="peak of a step (MB, log scale)", ylabel="trained (millions)")
axes.set_xticks([20, 30, 50, 100], ["20", "30", "50", "100"])
axes.minorticks_off()
axes.set_title("MobileNetV3-Small, 224x224, batch 8: a dot is a number of blocks")
_ = axes.legend(fontsize=8)

# %% [markdown]
# `minitl plan mobilenet_v3_small --budget 30MB --of peak` does this for all methods. Its "best" is
# the one that trains most numbers, then exact slopes before approximate ones, then fewer FLOPs.
# That is a choice, not a truth: accuracy per byte (tutorial 8) or FLOPs per step would be others
# (exercise 10c).
#
# And where nothing fits? Then it ends with exit code 2 and one line, which names the smallest that
# would:

# %% tags=["volatile"]
import subprocess
import sys

command = "plan digits_irb --resolution 24 --budget 300kB --of peak --threads 2"
said = subprocess.run([sys.executable, "-m", "minitl", *command.split()], capture_output=True)
print(f"exit code {said.returncode}: {said.stderr.decode().strip()}")
assert (said.returncode, len(said.stderr.splitlines())) == (2, 1)

# %% [markdown]
# ## What moves the peak
#
# Four more knobs. Which of them helps most here? (As in tutorial 9, a few peaks may differ by a percent on
# yours: scratch memory holds whole tiles.)

# %% tags=["about"]
BASE = ("mobiletl-exact", 5)
print(f"{'':34}{'peak bytes':>12}")
for name, options in {
    "batch 8, 224x224": {},
    "batch 4": {"batch": 4},
    "160x160": {"resolution": 160},
    "frozen weights in 8 bits": {"quantised": True},
    "checkpoints": {"checkpoint": True},
}.items():
    peak = step(net, *BASE, **options)[0].peak_bytes
    print(f"{name:34}{peak:>12,}")
    assert peak <= step(net, *BASE)[0].peak_bytes
slots = [minitl.accounting.predict(net, batch=8, resolution=224, optimizer_slots=n) for n in (0, 2)]
adam = slots[1].totals.optimizer_bytes
print(f"Adam's state would add {adam:,} bytes: two numbers for each trained one")
assert adam == 2 * slots[0].totals.trained_parameter_bytes

# %% [markdown]
# In the next figure look at the left end: the curves do not start at zero. Parameters are there
# whatever the batch. (The images are there too, as float32. As a camera gives them, uint8, they
# take a quarter, once `net.normalisation = "imagenet"` says what the pixels stand for; on the command
# line, with `--images uint8`.)

# %% tags=["about"]
picture, axes = figure(height=2.8)
batches = [1, 2, 4, 8, 12, 16]
for method, colour in COLOURS.items():
    peaks = [step(net, method, 5, batch=batch)[0].peak_bytes / 1e6 for batch in batches]
    axes.plot(batches, peaks, "o-", color=colour, markersize=4, label=method)
    assert peaks == sorted(peaks)
axes.set(xlabel="batch", ylabel="peak (MB)", xlim=(0, None), ylim=(0, None))
axes.set_title("the top 5 blocks of MobileNetV3-Small")
_ = axes.legend(fontsize=8)

# %% [markdown]
# So a batch of half the size does not halve the peak, and "kept bytes per image, times the batch"
# is the wrong formula for a device.
#
# ## A method is a policy
#
# Here is all there is to a method: a function from a layer and the number of tuned blocks to a
# *plan* for that layer. `layer.height` is 0 above the blocks, 1 for the top block, and so on down;
# `layer.role` says what it is in its block. The plan says what is trained, whether a norm uses the
# batch's statistics, and which backward rule an activation takes. Look at a whole one:

# %%
import inspect

print(inspect.getsource(minitl.methods.METHODS["ft-norm"].policy))

# %% [markdown]
# ## Ours: train the filters and the shifts
#
# Suppose we want to train, in the tuned blocks, only the depthwise filters and the norms' shifts:
# 15,648 numbers per block instead of 126,336. All norms are frozen, so they keep nothing; and no
# pointwise convolution is trained, so their inputs, b and 6 b, should go. (b = 150,528 bytes, the
# input of the paper's block.) For the activations we take over what `mobiletl-exact` does: read the
# slope off the output.

# %%
from minitl.layers import FROZEN, LayerPlan, Norm
from minitl.methods import METHODS, Method

ABOVE = METHODS["mobiletl-exact"].policy


def filters_and_shifts(act_rules):
    """A policy: depthwise filters and shifts; `act_rules` are the activations' rules by role."""

    def policy(layer, blocks):
        if layer.height == 0 or layer.height > blocks:
            return ABOVE(layer, blocks)
        if isinstance(layer, Norm):
            return LayerPlan(train=frozenset({"bias"}))
        if layer.role == "depthwise":
            return LayerPlan(train=frozenset({"weight"}))
        return LayerPlan(rule=act_rules[layer.role]) if layer.role in act_rules else FROZEN

    return policy


def block_with(policy):
    """The paper's V2 block with that policy; its ledger and what it trains."""
    block = minitl.networks.irb(activation="relu6", se_channels=0)
    Method("ours", "", policy, takes_blocks=True, blocks=1).apply(block)
    ledger = minitl.accounting.predict(block, batch=8, resolution=7)
    return ledger, sum(parameter.size for parameter in block.trained_parameters().values())


# %% [markdown]
# **Predict.** MobileTL keeps 2,164,224 bytes of this block. How many does ours keep?

# %%
FIRST = {"expand_act": "output", "depthwise_act": "output"}
first, count = block_with(filters_and_shifts(FIRST))
for row in first.rows:
    print(f"{row.layer:14} {row.tensor:5} {row.bytes:>9,}  {', '.join(row.shared_with)}")
print(f"{'sum':20} {first.kept_bytes:>9,}  for {count:,} trained numbers")
mobiletl, of_mobiletl = block_with(METHODS["mobiletl"].policy)
assert (first.kept_bytes, count) == (1_806_336, 15_648)
assert (mobiletl.kept_bytes, of_mobiletl) == (2_164_224, 126_336)

# %% [markdown]
# 1,806,336 bytes: hardly less than MobileTL, for an eighth of the numbers. Notice first what we did
# *not* do. We never said that `expand` and `project` keep nothing. **What is kept is derived, never
# declared**: it follows from what is trained and from the rules.
#
# Then why so much? Read the ledger: `depthwise_act` keeps its output y, 903,168 bytes, and shares it
# with nobody. The rule was free as long as the projection kept y to train its weight. The
# projection is frozen now, so the cheapest rule has become the dearest. For ReLU6 there is another
# that is exact, `band`: one bit for "0 < x < 6" (tutorial 5). Change one word:

# %%
OURS = FIRST | {"depthwise_act": "band"}
second, count = block_with(filters_and_shifts(OURS))
print(f"{first.kept_bytes:,} -> {second.kept_bytes:,} bytes for the same {count:,} numbers")
assert second.kept_bytes == 6 * 150_528 + 28_224 == 931_392
assert 6 * 150_528 == 903_168

# %% [markdown]
# Half, by one word. In the figure, look at which part went: not the hatched one, which two
# operations share.

# %%
picture, axes = figure(height=1.9)
names = {"expand_act": BLUE, "depthwise": BLUE, "depthwise_act": YELLOW}
for place, ledger in enumerate((first, second)):
    left = 0
    for row in ledger.rows:
        if row.bytes:
            style = {"hatch": "///" if row.shared_with else "", "edgecolor": "white"}
            axes.barh(place, row.bytes / 1e6, left=left, color=names[row.layer], **style)
            said = " = ".join(
                [f"{row.layer} {row.tensor}", *(f"{other} x" for other in row.shared_with)]
            )
            inside = row.bytes > 500_000
            shown = f"{said}\n{row.bytes:,}" if inside else f"{said}, {row.bytes:,}"
            where = left + row.bytes / 2e6 if inside else left + row.bytes / 1e6 + 0.02
            style = {"ha": "center" if inside else "left", "va": "center", "fontsize": 8}
            axes.text(where, place, shown, backgroundcolor="white" if inside else "none", **style)
            left += row.bytes / 1e6
axes.set_yticks([0, 1], ["output, output", "output, band"])
axes.set(xlabel="kept (MB)", title="our method with two sets of rules")
axes.invert_yaxis()

# %% [markdown]
# ## Registered, it is a method like any other
#
# A line makes it known by name; from then on `plan`, `predict` and `fit` use it. Here it is in a
# whole network, on the top five blocks of MobileNetV2:

# %%
METHODS["filters"] = Method(
    "filters", "depthwise filters and shifts", filters_and_shifts(OURS), takes_blocks=True
)
v2 = minitl.networks.mobilenet_v2(num_classes=10)
kept = {}
for method in ("mobiletl", "mobiletl-exact", "filters"):
    totals, trained = step(v2, method, 5)
    kept[method] = totals.kept_bytes
    print(f"{method:16} kept {kept[method]:>11,} bytes, trained {trained:>10,}")
assert kept["filters"] < 0.6 * kept["mobiletl"]

# %% [markdown]
# ## A test for a method
#
# What should hold of any method? Its gradients are those of what it trains and of nothing else;
# what it does not train does not move; and the bytes predicted are the bytes held. Here is that
# test, on random blocks. (Kernels are compiled: it takes some seconds the first time.)

# %%
rng = np.random.default_rng(0)
for _ in range(4):
    sizes = {"in_channels": 5, "expanded_channels": int(rng.integers(6, 20)), "out_channels": 7}
    sizes |= {"kernel": int(rng.choice([3, 5])), "stride": int(rng.choice([1, 2]))}
    side, batch = int(rng.choice([5, 7, 9])), int(rng.integers(2, 5))
    block = minitl.networks.irb(activation="relu6", se_channels=0, **sizes)
    METHODS["filters"].with_blocks(1).apply(block)
    before, tape = block.state_dict(), minitl.Tape()
    y = block(tape, rng.standard_normal((batch, side, side, 5), np.float32))
    held = minitl.accounting.ledger(tape).kept_bytes
    gradients = tape.backward(y)
    assert held == minitl.accounting.predict(block, batch=batch, resolution=side).kept_bytes
    assert gradients.keys() == block.trained_parameters().keys()
    assert all(np.array_equal(before[name], value) for name, value in block.state_dict().items())
print("predicted = held; gradients of what is trained; nothing else moved")

# %% [markdown]
# Does it learn? Put it into `WAYS` of [tutorial 8](08_adapt_to_new_digits.py), with three seeds
# before you say anything. (There the activations are Hard-Swish: `output` with its one bit is the
# exact rule that shares y, `exact` the one that keeps x, `sign` MobileTL's.)
#
# ## What you can now do
#
# Plan for a device, and add a method in one file. That makes you a contributor: in `minitl` a
# method is exactly such a file, with a docstring that says where it comes from.
#
# ## Exercises
#
# **10a.** `peak(batch)` gives the peak of a step in bytes; it never falls when the batch grows.
# Return the largest batch whose peak is at most `budget`, 0 if not even one image fits. `peak` is
# expensive: do not ask it more than about 40 times.

# %%
from course import check


def largest_batch(peak, budget):
    """The largest batch with peak(batch) <= budget."""
    raise NotImplementedError  # yours


check("10a", largest_batch)

# %% [markdown]
# **10b.** A policy of your own for the V2 block above: exact slopes, less than a million bytes kept,
# and more trained numbers than the 15,648 of ours. (Which inputs are small?) What is below the tuned
# blocks, `layer.height > blocks`, stays frozen. A plan is
# `LayerPlan(train=frozenset(), statistics="frozen", rule="")`, here with what it says if you leave
# everything out: the names of the parameters to train ("weight", "bias"); "batch" or "frozen"
# statistics of a norm; an activation's rule. The roles are expand, expand_norm, expand_act, depthwise,
# depthwise_norm, depthwise_act, project, project_norm and add.


# %%
def my_policy(layer, blocks):
    """The layer's LayerPlan."""
    raise NotImplementedError  # yours


check("10b", my_policy)

# %% [markdown]
# **10c.** `ways` is a list of dictionaries with `name`, `trained`, `exact`, `flops` and `peak`.
# Return the name of the best that fits `budget`: most trained numbers, among equals exact before
# approximate, among equals fewer FLOPs. None if nothing fits.


# %%
def best_way(ways, budget):
    """A name, or None."""
    raise NotImplementedError  # yours


check("10c", best_way)

# %% [markdown]
# Next: [11, the oracle](11_the_oracle.py), for those who write kernels. Or
# [12, fast](12_fast.py), an epilogue.
#
# *You can tune whatever keeps the peak within the budget; and what no method does, a policy of
# seven lines does, for what is kept follows from it.*
