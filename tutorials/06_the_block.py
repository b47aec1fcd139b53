# %% [markdown]
# # 6. Where do the 46 % of the paper's Figure 1 come from?
#
# *Needs: [3, convolutions](03_convolutions.py), [4, batch norm](04_batch_norm.py) and [5, activations
# in bits](05_activations_in_bits.py). Takes 30 minutes. Next: [7,
# squeeze-and-excite](07_squeeze_and_excite.py), or [9, peak](09_peak.py).*
#
# Training takes far more memory than inference, and mostly not for weights: every layer keeps
# something of its forward pass until the backward pass asks for it. MobileTL (Chiang et al. 2023,
# arXiv:2212.03246) makes the layers of a MobileNet ask for less: 46.3 % less in a block of
# MobileNetV2, says their Figure 1, and 53.3 % in one of MobileNetV3. We put the operations of
# tutorials 3 to 5 together, weigh all they keep, and find every byte of those two numbers.

# %%
import minitl
import numpy as np

from course import check
from course.pieces import (
    EPS,
    activation,
    activation_backward,
    batch_norm,
    batch_norm_backward,
    depthwise,
    depthwise_backward,
    frozen_norm,
    frozen_norm_backward,
    pointwise,
    pointwise_backward,
    random_block,
)

# %% [markdown]
# ## A list of calls
#
# An inverted residual block (Sandler et al. 2018, arXiv:1801.04381) widens a map, filters each
# channel by itself, and narrows it again:
#
#     x -> expand 1x1    -> expand_norm    -> activation
#       -> depthwise kxk -> depthwise_norm -> activation
#       -> project 1x1   -> project_norm   -> + x
#
# The two inner maps are several times wider than x (6 times, say), so nearly all memory is there.
# The pieces come from `course/pieces.py`: they are what you wrote in tutorials 3 to 5. One thing is
# new: each takes the name of its layer, so that all can write into one dictionary `kept` and read
# their parameters from one dictionary `p`.
#
# The rule of the game stays: **forward writes to `kept`; backward sees `kept`, `gy` and `p`, and
# nothing else.** We write the block once, with two switches:
#
# - `shift_only`: the two inner norms have frozen statistics and a frozen scale, and train their
#   shift only. Otherwise they use the batch's statistics and train scale and shift.
# - `signs`: the activations use the sign rule. Otherwise their exact slope.
#
# Vanilla fine-tuning has both off, MobileTL both on. The last norm always uses the batch.


# %%
def forward(x, p, *, kind, shift_only, signs):
    """y of the block, and `kept`: all that `backward` will use of this pass."""
    inner_norm = frozen_norm if shift_only else batch_norm
    kept = {}
    h = pointwise(x, p, "expand", kept)
    h = inner_norm(h, p, "expand_norm", kept)
    h = activation(h, "expand_act", kept, kind, signs)
    h = depthwise(h, p, "depthwise", kept)
    h = inner_norm(h, p, "depthwise_norm", kept)
    h = activation(h, "depthwise_act", kept, kind, signs)
    h = pointwise(h, p, "project", kept)
    h = batch_norm(h, p, "project_norm", kept)
    return (h + x if h.shape == x.shape else h), kept


VANILLA = {"shift_only": False, "signs": False}
MOBILETL = {"shift_only": True, "signs": True}

# %% [markdown]
# And its backward is the same list from the end. Read each line of `backward` against the line of
# `forward` that it undoes. The comments say what a line takes from `kept`; where they name two
# things, the second is MobileTL's.


# %%
def backward(kept, gy, p):
    """Gradients of all that is trained, by name, and of the block's input, as "x"."""
    shift_only = "expand_norm.x_hat" not in kept
    inner_norm_backward = frozen_norm_backward if shift_only else batch_norm_backward
    grads = {}
    g = batch_norm_backward(kept, gy, p, "project_norm", grads)  # kept: x_hat, inv_std
    g = pointwise_backward(kept, g, p, "project", grads)  # kept: x
    g = activation_backward(kept, g, "depthwise_act")  # kept: codes or x; or mask
    g = inner_norm_backward(kept, g, p, "depthwise_norm", grads)  # kept: x_hat, inv_std; or nothing
    g = depthwise_backward(kept, g, p, "depthwise", grads)  # kept: x
    g = activation_backward(kept, g, "expand_act")  # kept: codes or x; or mask
    g = inner_norm_backward(kept, g, p, "expand_norm", grads)  # kept: x_hat, inv_std; or nothing
    g = pointwise_backward(kept, g, p, "expand", grads)  # kept: x
    grads["x"] = g + gy if g.shape == gy.shape else g  # kept: nothing
    return grads


# %% [markdown]
# ## Is the backward right?
#
# A block to try it on: 8 channels, expanded to 48, a 3x3 filter, two images of 7x5, float64. Take
# `<gy, y>`, the sum of all `gy * y`, as the loss, and move x and all trained parameters along a
# random direction t. The loss then changes at the rate (loss(d) - loss(-d)) / 2d; if `backward`
# gives its derivative, the rate is `<grads, t>`.


# %%
def slopes(x, p, gy, backward, d=1e-6, **switches):
    """Slope of <gy, y> along a random direction: by central differences, and by backward."""
    _, kept = forward(x, p, **switches)
    grads, rng = backward(kept, gy, p), np.random.default_rng(1)
    t = {name: rng.standard_normal(g.shape) for name, g in grads.items()}

    def loss(step):
        moved = {name: value + step * t.get(name, 0) for name, value in p.items()}
        return (gy * forward(x + step * t["x"], moved, **switches)[0]).sum()

    return (loss(d) - loss(-d)) / (2 * d), sum((grads[name] * t[name]).sum() for name in t)


def agree(by_differences, by_backward):
    return abs(by_backward - by_differences) < 1e-6 * abs(by_differences)


rng = np.random.default_rng(0)
p = random_block(rng, channels=8, expanded=48, outputs=8, kernel=3)
x, gy = rng.standard_normal((2, 2, 7, 5, 8))

# %% [markdown]
# We run all four settings of the two switches. **Predict** in which of them differences and backward
# will disagree.

# %%
print("kind        shift_only  signs  differences    backward")
for kind in ("relu6", "hard_swish"):
    for shift_only, signs in [(False, False), (True, False), (False, True), (True, True)]:
        both = slopes(x, p, gy, backward, kind=kind, shift_only=shift_only, signs=signs)
        print(f"{kind:10}  {shift_only!s:10}  {signs!s:5}  {both[0]:11.4f}  {both[1]:10.4f}")
        surrogate = signs and (shift_only or kind == "hard_swish")
        assert agree(*both) != surrogate, f"unexpected: {kind}, {shift_only=}, {signs=}"

# %% [markdown]
# Wherever `signs` is off they agree, with shift-only norms too: freezing changes *which function*
# is trained, and its gradient is exact. The sign rule is a surrogate (tutorial 5): it does not
# agree, and should not. But look at ReLU6 with batch statistics: there it does. Its sign rule is
# wrong only where x >= 6, and a normalised value seldom gets there; frozen statistics let a few
# through. (How far does the sign rule turn the gradient? Exercise 6c.)
#
# ## The residual is a fork
#
# The last line of `backward` is the easiest to forget. x is used twice, by the expand convolution
# and by the addition, so its gradient is a sum of two (tutorial 2). Leave the second out:


# %%
def without_residual(kept, gy, p):
    grads = backward(kept, gy, p)
    return {**grads, "x": grads["x"] - gy}


both = slopes(x, p, gy, without_residual, kind="hard_swish", **VANILLA)
print(f"differences {both[0]:.4f}, backward without the residual {both[1]:.4f}")
assert not agree(*both)

# %% [markdown]
# Caught. Note what the addition keeps: nothing. Its gradient is `gy` itself.
#
# ## Weigh what is kept
#
# Now the paper's block in MobileNetV2's form: 96 -> 576 -> 96 channels, 5x5 filters, 7x7, a batch
# of 8, ReLU6, float32. **Predict** how many bytes each layer keeps in vanilla fine-tuning. It is
# enough to know three sizes: the block's input, a wide map, and one bit for each element of a wide
# map.

# %%
B = 8 * 7 * 7 * 96 * 4  # the block's input, (8, 7, 7, 96) in float32: 150,528 bytes
WIDE = 6 * B  # a map of 576 channels: 903,168 bytes
BIT = WIDE // 32  # one bit for each of its elements: 28,224 bytes
PER_CHANNEL = 576 * 4  # one number per wide channel: 2,304 bytes

PREDICTED = {
    "expand.x": B,
    "expand_norm.x_hat": WIDE,
    "expand_norm.inv_std": PER_CHANNEL,
    "expand_act.codes": 2 * BIT,  # ReLU6 has three regions
    "depthwise.x": WIDE,
    "depthwise_norm.x_hat": WIDE,
    "depthwise_norm.inv_std": PER_CHANNEL,
    "depthwise_act.codes": 2 * BIT,
    "project.x": WIDE,
    "project_norm.x_hat": B,
    "project_norm.inv_std": 96 * 4,
}

# %%
full_p = {name: a.astype(np.float32) for name, a in random_block(rng, 96, 576, 96, 5).items()}
full_x = rng.standard_normal((8, 7, 7, 96), np.float32)


def kept_by_hand(kind, **switches):
    """Bytes by name of what our forward keeps of the paper's block."""
    return {name: a.nbytes for name, a in forward(full_x, full_p, kind=kind, **switches)[1].items()}


def why(name):
    """Which gradients an entry of `kept` is for."""
    layer, tensor = name.split(".")
    if tensor == "x_hat":
        return "input and scale"
    return "input" if tensor == "inv_std" or layer.endswith("_act") else "weight"


vanilla, mobiletl = kept_by_hand("relu6", **VANILLA), kept_by_hand("relu6", **MOBILETL)
print(f"{'V2 block, batch 8':24}{'for the gradient of':21}{'vanilla':>10}{'MobileTL':>10}")
layers = list(dict.fromkeys(name.split(".")[0] for name in PREDICTED))
for name in sorted(vanilla | mobiletl, key=lambda name: layers.index(name.split(".")[0])):
    print(f"{name:24}{why(name):21}{vanilla.get(name, 0):>10,}{mobiletl.get(name, 0):>10,}")
print(f"{'sum':45}{sum(vanilla.values()):>10,}{sum(mobiletl.values()):>10,}")
assert vanilla == PREDICTED
assert (sum(vanilla.values()), sum(mobiletl.values())) == (4_031_616, 2_164_224)
assert f"{100 * (1 - 2_164_224 / 4_031_616):.3f}" == "46.319"

# %% [markdown]
# 4,031,616 bytes against 2,164,224: 46.319 % less. The paper prints 46.3 %.
#
# The picture shows the same block twice. Each operation hangs what it keeps below itself, as a
# square whose area is its bytes. Look for the large squares that disappear, and for those that
# stay: the inputs of the convolutions.

# %%
from course.figures import BLUE, GREEN, GREY, RED, YELLOW, figure

LAYERS = ["expand", "expand_norm", "expand_act", "depthwise", "depthwise_norm", "depthwise_act"]
LAYERS += ["project", "project_norm"]
KINDS = {"convolution's input": BLUE, "norm's x_hat": RED, "activation": YELLOW}


def kind_of(layer):
    """Which of `KINDS` a layer's buffers are."""
    return list(KINDS)[1 if "norm" in layer else 2 if "act" in layer else 0]


def hang(axes, kept, title):
    """Draw the block's operations in a row, with what each keeps below it."""
    for place, layer in enumerate(LAYERS):
        size = sum(count for name, count in kept.items() if name.split(".")[0] == layer)
        side = 0.92 * np.sqrt(size / WIDE)
        axes.bar(place, -side, side, color=KINDS[kind_of(layer)])
        axes.text(place, 0.06, layer.replace("_", "\n"), ha="center", va="bottom", fontsize=8)
        axes.text(place, -side - 0.04, f"{size:,}", ha="center", va="top", fontsize=7)
    axes.axhline(0, color="#333333", linewidth=1)
    axes.set(title=title, xlim=(-0.6, 7.6), ylim=(-1.15, 0.45), aspect="equal")
    axes.axis("off")


picture, panels = figure(rows=2, height=3.6)
hang(panels[0], vanilla, "vanilla: 4,031,616 bytes")
hang(panels[1], mobiletl, "MobileTL: 2,164,224 bytes")
handles = [panels[0].bar(0, 0, color=colour) for colour in KINDS.values()]
_ = picture.legend(handles, KINDS, loc="outside lower center", ncols=3, fontsize=8)

# %% [markdown]
# ## From 4.03 to 2.16, step by step
#
# Four rows changed, and each change is one sentence of an earlier tutorial:
#
# - `expand_norm` trains its shift only, under frozen statistics: x_hat and inv_std go, 905,472
#   bytes (tutorial 4).
# - `depthwise_norm` likewise: another 905,472 bytes.
# - Each activation keeps one bit instead of two: 28,224 bytes, twice (tutorial 5).
#
# In the next figure look at the size of the steps: nearly all of it is the norms.

# %%
steps = {"vanilla": 4_031_616, "expand\nnorm": -905_472, "depthwise\nnorm": -905_472}
steps |= {"2 bits\nto 1": -28_224, "2 bits\nto 1 ": -28_224}
assert sum(steps.values()) == sum(mobiletl.values()) == 4_031_616 - 1_810_944 - 56_448
assert vanilla["expand_norm.x_hat"] + vanilla["expand_norm.inv_std"] == 905_472

picture, axes = figure(height=3)
level = 0
for name, change in steps.items():
    axes.bar(name, change / 1e6, bottom=level / 1e6, color=RED if level else GREY)
    label, top = (f"{change:+,}", level) if level else (f"{change:,}", change)
    axes.text(name, top / 1e6 + 0.05, label, ha="center", fontsize=8)
    level += change
axes.bar("MobileTL", level / 1e6, color=BLUE)
axes.text("MobileTL", level / 1e6 + 0.05, f"{level:,}", ha="center", fontsize=8)
axes.set(ylabel="kept (MB)", ylim=(0, 4.6), title="a V2 block, from vanilla to MobileTL")
axes.tick_params(axis="x", labelsize=8)

# %% [markdown]
# ## And in MobileNetV3?
#
# There the activation is Hard-Swish, whose exact slope needs x whole. **Predict** what MobileTL keeps
# now: a bit is a bit.

# %%
with_swish = kept_by_hand("hard_swish", **VANILLA)
mobiletl_swish = kept_by_hand("hard_swish", **MOBILETL)
print(f"Hard-Swish: {sum(with_swish.values()):,} -> {sum(mobiletl_swish.values()):,} bytes")
assert sum(with_swish.values()) == 5_725_056
assert mobiletl_swish == mobiletl
assert f"{100 * (1 - 2_164_224 / 5_725_056):.3f}" == "62.197"

# %% [markdown]
# From 5,725,056 bytes to the very same 2,164,224: 62.197 % less. The paper's V3 block also has
# squeeze-and-excite, which adds 945,360 bytes to both sides and so makes the saving *look* smaller:
# 53.382 %. (Published: 53.3 %; the paper cuts, it does not round. What those bytes are is the question
# of tutorial 7.)
#
# How much does each switch do by itself? **Predict** the order: in V2, are the norms or the
# activations the larger part? And in V3?

# %%
SE = 945_360
PARTS = {"vanilla": VANILLA, "signs only": {"shift_only": False, "signs": True}}
PARTS |= {"shift only": {"shift_only": True, "signs": False}, "both (MobileTL)": MOBILETL}
EXPECTED = {"vanilla": (4_031_616, 6_670_416), "signs only": (3_975_168, 4_920_528)}
EXPECTED |= {"shift only": (2_220_672, 4_859_472), "both (MobileTL)": (2_164_224, 3_109_584)}

print(f"{'bytes kept':16}{'V2':>10}{'less':>8}{'V3':>11}{'less':>8}")
for name, switches in PARTS.items():
    v2 = sum(kept_by_hand("relu6", **switches).values())
    v3 = sum(kept_by_hand("hard_swish", **switches).values()) + SE
    less = [f"{100 * (1 - n / whole):.1f} %" for n, whole in ((v2, 4_031_616), (v3, 6_670_416))]
    print(f"{name:16}{v2:>10,}{less[0]:>8}{v3:>11,}{less[1]:>8}")
    assert (v2, v3) == EXPECTED[name]
assert SE == 945_360
assert f"{100 * (1 - 3_109_584 / 6_670_416):.3f}" == "53.382"
assert "46.319".startswith("46.3")  # the published digits
assert "53.382".startswith("53.3")

# %% [markdown]
# In V2 it is the norms; in V3 half and half. Neither switch alone is MobileTL. (The last line's 53.4 %
# is 53.382 rounded.)
#
# ## The same block in minitl
#
# `minitl` does the same with fast kernels, for whole networks, and keeps accounts. A *network*
# (here a single block) is given a *method*, which decides what trains and by which rule; a *tape*
# records the forward pass with everything kept, and walks it back. We go back to the small block in
# float64, where a difference of 1e-8 is a mistake and cannot pass for rounding. Both sides get
# the same `gy`. (The first time, the cell after the next takes up to half a minute: kernels are
# compiled.)


# %%
def block(method, **attrs):
    """A block in minitl with a method applied to it; `attrs` are its sizes."""
    net = minitl.networks.irb(**({"se_channels": 0, "eps": EPS} | attrs))
    return minitl.methods.get(method, blocks=1).apply(net)


def run_minitl(method, kind):
    """Our small block in minitl: its output, kept buffers, gradients and ledger."""
    sizes = {"in_channels": 8, "expanded_channels": 48, "out_channels": 8, "kernel": 3}
    net = block(method, activation=kind, dtype="float64", input_grad=True, **sizes)
    net.load_state_dict(p)
    tape = minitl.Tape()
    y = net(tape, x)
    kept = {
        f"{record.layer}.{tensor}": buffer.array.copy()
        for record in tape.records
        for tensor, buffer in record.saved.buffers.items()
    }
    ledger = minitl.accounting.ledger(tape)
    return y.value, kept, tape.backward(y, gy), ledger  # (y is a Var; its .value is the array)


# %%
def largest_difference(ours, theirs):
    """Of two dictionaries of arrays: the largest difference, relative to an array's maximum."""
    assert ours.keys() == theirs.keys(), f"different names: {ours.keys() ^ theirs.keys()}"
    return max(abs(ours[n] - theirs[n]).max() / abs(theirs[n]).max() for n in ours)


for method, switches in {"ft-blocks": VANILLA, "mobiletl": MOBILETL}.items():
    for kind in ("relu6", "hard_swish"):
        ours, kept = forward(x, p, kind=kind, **switches)
        grads = backward(kept, gy, p)
        del grads["x"]  # minitl gives the gradients of parameters
        theirs, buffers, minitl_grads, ledger = run_minitl(method, kind)
        assert largest_difference({"y": ours}, {"y": theirs}) < 1e-12
        assert largest_difference(grads, minitl_grads) < 1e-11
        assert largest_difference(kept, buffers) < 1e-12
        rows = {f"{row.layer}.{row.tensor}": row.bytes for row in ledger.rows}
        assert rows == {name: array.nbytes for name, array in kept.items()}
        print(f"{method:9} {kind:10}  {ledger.kept_bytes:,} bytes; outputs, gradients, kept: equal")
assert kept["expand_act.mask"].shape == (9, 48)

# %% [markdown]
# Outputs and kept buffers agree within 1e-12 of their size, gradients within 1e-11, masks and bytes
# exactly. (A mask has 9 bytes per channel: the bits of 70 positions fill 8 bytes and 6 bits of a
# ninth.) A ledger's rows say what we have tabulated, and more. Here is the last of the four ledgers,
# MobileTL's with Hard-Swish (`print(ledger)` shows all of it):

# %%
for row in ledger.rows:
    wanted = ", ".join(need.removeprefix("grad_") for need in row.needed_for)
    print(f"{row.layer:14} {row.tensor:8} {row.bits:2} bits {row.bytes:>7,} bytes  for {wanted}")

# %% [markdown]
# ## Beyond the paper
#
# `minitl` can also predict the bytes from shapes alone, without running anything, and it has two
# methods the paper does not have. `mobiletl-exact` trains what `mobiletl` trains, with *exact*
# slopes. `mobiletl-recompute` computes the depthwise convolution's input a second time instead of
# keeping it. What will exactness cost?

# %%
PAPER_BLOCK = {"in_channels": 96, "expanded_channels": 576, "out_channels": 96, "kernel": 5}
FORMS = {"V2": {"activation": "relu6"}, "V3": {"activation": "hard_swish", "se_channels": 144}}
METHODS = ("ft-blocks", "mobiletl", "mobiletl-exact", "mobiletl-recompute")


def ledger_of(form, method):
    """The ledger of the paper's block, from shapes alone."""
    net = block(method, **PAPER_BLOCK, **FORMS[form])
    return minitl.accounting.predict(net, batch=8, resolution=7)


ledgers = {(form, method): ledger_of(form, method) for form in FORMS for method in METHODS}
print(f"{'bytes kept':20}{'V2':>10}{'less':>10}{'in b':>7}{'V3':>11}{'less':>10}{'in b':>7}")
for method in METHODS:
    line = f"{method:20}"
    for form, width in (("V2", 10), ("V3", 11)):
        kept, whole = ledgers[form, method].kept_bytes, ledgers[form, "ft-blocks"].kept_bytes
        line += f"{kept:>{width},}{f'{100 * (1 - kept / whole):.3f} %':>10}{kept / B:7.2f}"
    print(line)
v2, v3 = ([ledgers[form, method].kept_bytes for method in METHODS] for form in FORMS)
assert v2 == [4_031_616, 2_164_224, 2_107_776, 1_204_608]
assert v3 == [6_670_416, 3_109_584, 2_206_416, 1_275_024]

# %% [markdown]
# Nothing: the exact slopes keep *less* than the sign rule. ("In b" are units of the block's input,
# 150,528 bytes.) Where did MobileTL's two masks go? Ask the ledger which rows are shared:

# %%
for row in ledgers["V2", "mobiletl-exact"].rows:
    shared = f"shared with {row.shared_with[0]}" if row.shared_with else ""
    print(f"{row.layer:14} {row.tensor:8} {row.bytes:>9,}  {shared}")

# %% [markdown]
# An activation's output y is the input of the next convolution, which keeps it to train its
# weights. ReLU6's slope can be read off y (tutorial 5), so the activation names a buffer that is
# there already, and no mask is needed. The ledger counts such a buffer once and names both.
#
# In the last figure, look for the hatched parts. They belong to two operations at a time: without
# them the convolution would still keep what the activation reads, and the other way round.

# %%
GROUPS = {"convolutions": BLUE, "norms": RED, "activations": YELLOW}
GROUPS |= {"convolution and activation": BLUE, "squeeze-and-excite": GREEN}


def group(row):
    """Which part of the stack a ledger's row belongs to."""
    if row.layer.startswith("se."):
        return "squeeze-and-excite"
    if row.shared_with:
        return "convolution and activation"
    if "act" in row.layer:
        return "activations"
    return "norms" if "norm" in row.layer else "convolutions"


picture, axes = figure(height=3.6)
for place, ledger in enumerate(ledgers.values()):
    left = 0
    for name, colour in GROUPS.items():
        width = sum(row.bytes for row in ledger.rows if group(row) == name) / 1e6
        hatch = "///" if name == "convolution and activation" else ""
        style = {"color": colour, "hatch": hatch, "edgecolor": "white"}
        axes.barh(place, width, left=left, label=name if place == 0 else None, **style)
        left += width
    axes.text(left + 0.08, place, f"{left:.2f}", va="center", fontsize=8)
axes.set_yticks(range(len(ledgers)), [f"{form} {method}" for form, method in ledgers], fontsize=8)
axes.set(xlabel="kept (MB)", xlim=(0, 7.6), title="the paper's Figure 1, and two methods more")
axes.invert_yaxis()
_ = axes.legend(fontsize=8, loc="lower right")

# %% [markdown]
# The first, second, fifth and sixth bar are the paper's Figure 1. Its labels are 0.91 for a norm,
# 0.90 for a convolution's input or a Hard-Swish, and 0.95 for squeeze-and-excite, in MB.
#
# (Why do frameworks not show such savings? In them, what is kept is decided by the operation, not by
# what is trained: [tutorial 2](02_the_tape.py).)
#
# ## What you can now do
#
# You can write a whole block forward and backward, and say of every byte it keeps which gradient
# asks for it. `minitl/blocks.py` is now easy reading.
#
# ## Exercises
#
# **6a.** Predict the rows from shapes alone, without any array. `sizes` has the keys `batch`,
# `resolution` (H = W), `inputs`, `expanded`, `outputs`, `stride`, `kind` ("relu6" or "hard_swish")
# and the method is "vanilla" or "mobiletl". Return bytes by name, as in `PREDICTED`, for float32;
# a row that does not exist is left out. With stride 2 the map behind the depthwise convolution has
# ceil(H / 2) rows and columns. Packed bits fill whole bytes per channel: a mask of M positions takes
# ceil(M / 8) of them. Codes lie two bits per position, ceil(2 M / 8) bytes.


# %%
def predict_rows(sizes, method):
    """Bytes kept by name: {"expand.x": ..., ...}."""
    raise NotImplementedError  # yours


check("6a", predict_rows)

# %% [markdown]
# **6b.** The block with a stride, MobileTL's switches on. `depthwise` and `depthwise_backward` take
# `stride=`. The residual is there where the block has stride 1 *and* x and y have one shape: take
# care of a 1x1 map. Return y and the gradients by name, with that of the input as "x".


# %%
def strided_block(x, p, gy, kind, stride):
    """y (N, H', W', O) and {name: gradient}."""
    raise NotImplementedError  # yours


check("6b", strided_block)

# %% [markdown]
# **6c.** How far does the sign rule turn the gradient? For the convolutions' weights, compute the
# cosine of the angle between the gradient with `signs` on and the exact one, both with
# `shift_only` on and Hard-Swish: `<a, b> / (|a| |b|)`. On the block of this tutorial, which of the
# three will be turned most? (`forward` and `backward` are handed to you.)


# %%
def cosines(x, p, gy, forward, backward):
    """{"expand.weight": cosine, "depthwise.weight": ..., "project.weight": ...}."""
    raise NotImplementedError  # yours


check("6c", cosines)

# %% [markdown]
# **6d.** Freeze the expand convolution's weight, and nothing else. Which rows of the V2 block go,
# under "vanilla" and under "mobiletl"? Nothing below the block is trained. Return their names, as
# in `PREDICTED`.


# %%
def rows_that_go(method):
    """A set of names, such as {"project.x"}."""
    raise NotImplementedError  # yours


check("6d", rows_that_go)

# %% [markdown]
# **Next:** [7. Squeeze-and-excite](07_squeeze_and_excite.py), the 945,360 bytes we only added. Or
# [9. Peak](09_peak.py), if it is budgets that you are after.
#
# *The 46 % are two normalised maps that shift-only norms no longer keep, 1,810,944 bytes, and one
# bit less per element in two activations, 56,448.*
