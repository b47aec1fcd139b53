# %% [markdown]
# # One Hard-Swish and one block, by hand
#
# Training takes far more memory than inference, and mostly not for weights: every layer keeps
# something of its forward pass until the backward pass asks for it. MobileTL (Chiang et al. 2023,
# arXiv:2212.03246) makes the layers of a MobileNet ask for less. To see how, we write the backward
# pass ourselves, put all it uses into a dictionary, and weigh the dictionary.
#
# 1. One activation: what does its backward have to know?
# 2. One inverted residual block, forward and backward, in plain NumPy.
# 3. The same block in `minitl`: same outputs, same gradients, same bytes.
# 4. Three exercises.
#
# You should have met the chain rule and NumPy's broadcasting. `gy` always is the gradient of the
# loss with respect to an operation's output y, and `gx`, `gw` those with respect to its input x and
# its weight w. Backward means: compute `gx` and `gw` from `gy` and from whatever was kept.

# %%
import numpy as np

# %% [markdown]
# ## 1. One Hard-Swish
#
# MobileNetV3's activation is
#
#     h(x) = x relu6(x + 3) / 6,      relu6(t) = min(max(t, 0), 6)
#
# and its derivative has three regions:
#
#     h'(x) = 0             where x <= -3      (h is 0)
#             (2x + 3) / 6  where -3 < x < 3   (h is x (x + 3) / 6)
#             1             where x >= 3       (h is x)
#
# h' jumps at -3 and at 3 (from 0 to -1/2, from 3/2 to 1), so h has no derivative there; we take the
# value from the outer side, as `minitl` does.


# %%
def hard_swish(x):
    """y = h(x)."""
    return x * np.clip(x + 3, 0, 6) / 6


def hard_swish_slope(x):
    """h'(x): three regions."""
    return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)


# %% [markdown]
# Its backward is one multiplication, `gx = gy * h'(x)`, so it has to know h'(x), which is another
# number for every x between -3 and 3. The exact rule therefore keeps x whole: 32 bits an element in
# float32. MobileTL keeps one bit, "is x at least 0?", and computes
#
#     gx = gy 1[x >= 0]
#
# Here are both rules on eight numbers.

# %%
x = np.array([-4, -3, -2, -1, 0, 1, 2, 4], np.float32)
bits = x >= 0

print("Hard-Swish on eight numbers\n")
print("   x    h(x)  exact slope  sign rule  sign - exact")
for value, y, slope, bit in zip(x, hard_swish(x), hard_swish_slope(x), bits, strict=True):
    print(f"{value:4.0f}  {y + 0:6.3f}  {slope:11.3f}  {bit:9d}  {bit - slope:12.3f}")

# %% [markdown]
# NumPy's smallest element is a byte, also for a bool. To really have eight bits in a byte, pack
# them (`bitorder="little"`: the first element becomes the lowest bit):

# %%
packed = np.packbits(bits, bitorder="little")

print(f"\nexact rule keeps x:           {x.nbytes:2d} bytes")
print(f"sign rule, array of bools:    {bits.nbytes:2d} bytes")
print(f"sign rule, packed:            {packed.nbytes:2d} byte, 0b{packed[0]:08b}")
assert (np.unpackbits(packed, bitorder="little") == bits).all()

# %% [markdown]
# Is our exact slope right? Ask the function itself, by central differences in float64:
#
#     (h(x + d) - h(x - d)) / 2d
#
# On straight lines and parabolas, which h is made of, these are exact but for rounding.

# %%
x64, d = x.astype(np.float64), 1e-4
differences = (hard_swish(x64 + d) - hard_swish(x64 - d)) / (2 * d)

smooth = abs(x64) != 3
of_exact = abs(hard_swish_slope(x64) - differences)[smooth].max()
of_sign = abs(bits - differences)[smooth].max()
print("\nlargest error, against differences, away from the kinks:")
print(f"    exact slope {of_exact:.1e}")
print(f"    sign rule   {of_sign:.1e}")
print(f"at the kink x = -3 the differences give {differences[1]:.3f}, halfway from 0 to -1/2")
assert of_exact < 1e-10, "hard_swish_slope is not the slope of hard_swish"

# %% [markdown]
# So the sign rule is wrong; how wrong? Look at it region by region.

# %%
print("\n    region        exact slope   sign rule  mean of sign - exact  largest")
for low, high in [(-6, -3), (-3, -1.5), (-1.5, 0), (0, 1.5), (1.5, 3), (3, 6)]:
    inside = low + (high - low) * (np.arange(100_000) + 0.5) / 100_000
    exact, sign = hard_swish_slope(inside), inside >= 0
    first, last = np.round(exact[[0, -1]], 2) + 0
    print(
        f"{low:4.1f} to {high:4.1f}  {first:5.2f} to {last:5.2f}  {sign[0]:9d}"
        f"  {(sign - exact).mean():20.2f}  {abs(sign - exact).max():7.2f}"
    )

# %% [markdown]
# Off by 1/2 at most, by nothing outside (-3, 3), and the mean differences cancel: from -3 to 3 both
# rules add up to the same rise, h(3) - h(-3) = 3. In fact 1[x >= 0] is the slope of *another*
# function, ReLU (but for x = 0): MobileTL runs Hard-Swish forward and ReLU backward.
#
# **Surrogate gradients are not derivatives.** A backward rule that replaces the derivative on
# purpose is called a surrogate gradient (in spiking networks: Neftci et al. 2019, arXiv:1901.09948)
# or a straight-through estimator (Bengio et al. 2013, arXiv:1308.3432). Two things follow. A
# finite-difference check *should* fail on it; what can be tested is that it follows its own
# definition, and how far that is from the slope. And whether training works with it is a question
# for experiments: calculus no longer promises that a small step downhill lowers the loss.

# %% [markdown]
# ## 2. One inverted residual block
#
#     x -> expand 1x1    -> expand_norm    -> Hard-Swish
#       -> depthwise kxk -> depthwise_norm -> Hard-Swish
#       -> project 1x1   -> project_norm   -> + x
#
# The two inner maps are several times wider than x (6 times, say), so nearly all memory is there.
# We write the block once, with two switches:
#
# - `shift_only`: the two inner norms have frozen statistics and a frozen scale, and train their
#   shift only. Otherwise they use the batch's statistics and train scale and shift.
# - `signs`: the activations use the sign rule. Otherwise their exact slope.
#
# Vanilla fine-tuning has both off, MobileTL both on. The last norm always uses the batch.
#
# Arrays are (N, H, W, C). Weights have PyTorch's shapes: (outputs, inputs, 1, 1) for a 1x1
# convolution, (C, 1, k, k) for a depthwise one; a norm has `weight` (gamma), `bias` (beta),
# `running_mean` and `running_var`. All live in one dictionary `p`, under `minitl`'s names.
#
# The rule of the game: **forward writes to `kept`; backward sees only `kept`, `gy` and `p`**, and
# hands its results over in `grads`. Comments in a backward say what its lines take from `kept`.

# %%
EPS = 1e-3  # keeps a norm from dividing by zero; MobileNetV3's value


def rows(x):
    """(N, H, W, C) seen as (N H W, C): one row a position."""
    return x.reshape(-1, x.shape[-1])


def pointwise(x, p, name, kept):
    """1x1 convolution: y = x W^T at every position."""
    kept[f"{name}.x"] = x
    return x @ p[f"{name}.weight"][:, :, 0, 0].T


def pointwise_backward(kept, gy, p, name, grads):
    w = p[f"{name}.weight"]
    gw = rows(gy).T @ rows(kept[f"{name}.x"])  # kept: x
    grads[f"{name}.weight"] = gw.reshape(w.shape)
    return gy @ w[:, :, 0, 0]  # kept: nothing


def pad(x, k):
    """Zeros around the image, for a k x k filter."""
    return np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))


def depthwise(x, p, name, kept):
    """A k x k filter for each channel (stride 1): for each tap, shift x, multiply, add."""
    kept[f"{name}.x"] = x
    w, (_, height, width, _) = p[f"{name}.weight"], x.shape
    k = w.shape[2]
    y, padded = np.zeros_like(x), pad(x, k)
    for u in range(k):
        for v in range(k):
            y += w[:, 0, u, v] * padded[:, u : u + height, v : v + width]
    return y


def depthwise_backward(kept, gy, p, name, grads):
    w, (_, height, width, _) = p[f"{name}.weight"], gy.shape
    k = w.shape[2]
    gx, gw = np.zeros_like(pad(gy, k)), np.zeros_like(w)
    padded = pad(kept[f"{name}.x"], k)  # kept: x
    for u in range(k):
        for v in range(k):
            tap = (slice(None), slice(u, u + height), slice(v, v + width))
            gw[:, 0, u, v] = (padded[tap] * gy).sum(axis=(0, 1, 2))  # kept: x
            gx[tap] += w[:, 0, u, v] * gy  # kept: nothing
    grads[f"{name}.weight"] = gw
    return gx[:, k // 2 : k // 2 + height, k // 2 : k // 2 + width]  # the padding's gradient: gone


def batch_norm(x, p, name, kept):
    """Normalise with the batch's own mean and variance (over N, H, W), then scale and shift.

    A training loop would also move the running statistics; no gradient depends on that.
    """
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    inv_std = 1 / np.sqrt(var + EPS)
    x_hat = (x - mean) * inv_std
    kept[f"{name}.x_hat"], kept[f"{name}.inv_std"] = x_hat, inv_std
    return p[f"{name}.weight"] * x_hat + p[f"{name}.bias"]


def batch_norm_backward(kept, gy, p, name, grads):
    m, gamma = len(rows(gy)), p[f"{name}.weight"]
    x_hat, inv_std = kept[f"{name}.x_hat"], kept[f"{name}.inv_std"]
    gbeta = gy.sum(axis=(0, 1, 2))  # kept: nothing
    ggamma = (gy * x_hat).sum(axis=(0, 1, 2))  # kept: x_hat
    grads[f"{name}.weight"], grads[f"{name}.bias"] = ggamma, gbeta
    return gamma * inv_std * (gy - gbeta / m - x_hat * ggamma / m)  # kept: x_hat, inv_std


def frozen_scale(p, name):
    return p[f"{name}.weight"] / np.sqrt(p[f"{name}.running_var"] + EPS)


def frozen_norm(x, p, name, kept):
    """The same with the running statistics: one multiply and one add a channel. Keeps nothing."""
    return (x - p[f"{name}.running_mean"]) * frozen_scale(p, name) + p[f"{name}.bias"]


def frozen_norm_backward(kept, gy, p, name, grads):
    grads[f"{name}.bias"] = gy.sum(axis=(0, 1, 2))  # kept: nothing
    return gy * frozen_scale(p, name)  # kept: nothing


def activation(x, name, signs, kept):
    """Hard-Swish; keeps its input, or one bit of it (packed over the positions of a channel)."""
    if signs:
        kept[f"{name}.mask"] = np.packbits(rows(x >= 0), axis=0, bitorder="little")
    else:
        kept[f"{name}.x"] = x
    return hard_swish(x)


def activation_backward(kept, gy, name):
    if f"{name}.mask" in kept:
        packed, m = kept[f"{name}.mask"], len(rows(gy))  # kept: mask
        bits = np.unpackbits(packed, axis=0, count=m, bitorder="little")
        return gy * bits.reshape(gy.shape)
    return gy * hard_swish_slope(kept[f"{name}.x"])  # kept: x


# %% [markdown]
# Now the block is a list of calls, and its backward the same list from the end. Read each line of
# `backward` against the line of `forward` that it undoes. Where its comment names two things, the
# second is MobileTL's.


# %%
def forward(x, p, *, shift_only, signs):
    """y of the block, and `kept`: all that `backward` will use of this pass."""
    inner_norm = frozen_norm if shift_only else batch_norm
    kept = {}
    h = pointwise(x, p, "expand", kept)
    h = inner_norm(h, p, "expand_norm", kept)
    h = activation(h, "expand_act", signs, kept)
    h = depthwise(h, p, "depthwise", kept)
    h = inner_norm(h, p, "depthwise_norm", kept)
    h = activation(h, "depthwise_act", signs, kept)
    h = pointwise(h, p, "project", kept)
    h = batch_norm(h, p, "project_norm", kept)
    return (h + x if h.shape == x.shape else h), kept


def backward(kept, gy, p):
    """Gradients of all that is trained, by name, and of the block's input, as "x"."""
    shift_only = "expand_norm.x_hat" not in kept
    inner_norm_backward = frozen_norm_backward if shift_only else batch_norm_backward
    grads = {}
    g = batch_norm_backward(kept, gy, p, "project_norm", grads)  # kept: x_hat, inv_std
    g = pointwise_backward(kept, g, p, "project", grads)  # kept: x
    g = activation_backward(kept, g, "depthwise_act")  # kept: x; or mask
    g = inner_norm_backward(kept, g, p, "depthwise_norm", grads)  # kept: x_hat, inv_std; or nothing
    g = depthwise_backward(kept, g, p, "depthwise", grads)  # kept: x
    g = activation_backward(kept, g, "expand_act")  # kept: x; or mask
    g = inner_norm_backward(kept, g, p, "expand_norm", grads)  # kept: x_hat, inv_std; or nothing
    g = pointwise_backward(kept, g, p, "expand", grads)  # kept: x
    grads["x"] = g + gy if g.shape == gy.shape else g  # kept: nothing
    return grads


VANILLA = {"shift_only": False, "signs": False}
MOBILETL = {"shift_only": True, "signs": True}

# %% [markdown]
# A block to try it on: 8 channels, expanded to 48, a 3x3 filter, two images of 7x7. Weights and
# statistics are random. We use float64 up to the last table, so that a difference of 1e-8 is a
# mistake and cannot pass for rounding; training would use float32.


# %%
def random_block(rng, channels, expanded, outputs, kernel):
    """Parameters of a block, by name, with norms that look as if they had been trained."""
    sizes = {"expand_norm": expanded, "depthwise_norm": expanded, "project_norm": outputs}
    p = {
        "expand.weight": rng.standard_normal((expanded, channels, 1, 1)) / np.sqrt(channels),
        "depthwise.weight": rng.standard_normal((expanded, 1, kernel, kernel)) / kernel,
        "project.weight": rng.standard_normal((outputs, expanded, 1, 1)) / np.sqrt(expanded),
    }
    for name, size in sizes.items():
        p[f"{name}.weight"] = rng.uniform(0.5, 1.5, size)
        p[f"{name}.bias"] = rng.standard_normal(size) / 2
        p[f"{name}.running_mean"] = rng.standard_normal(size) / 4
        p[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
    return p


BATCH, RESOLUTION = 2, 7
CHANNELS, EXPANDED, KERNEL = 8, 48, 3
rng = np.random.default_rng(0)
p = random_block(rng, CHANNELS, EXPANDED, CHANNELS, KERNEL)
x = rng.standard_normal((BATCH, RESOLUTION, RESOLUTION, CHANNELS))

y, kept = forward(x, p, **VANILLA)
_, kept_mobiletl = forward(x, p, **MOBILETL)

# %% [markdown]
# `kept` is a plain dictionary: print `kept.keys()`, look into it. Here is what each entry is for,
# and its bytes under the two methods.


# %%
def why(name):
    """Which gradients an entry of `kept` is for."""
    layer, tensor = name.split(".")
    if tensor == "x_hat":
        return "input and scale gradient"
    if tensor == "inv_std" or layer.endswith("_act"):
        return "input gradient"
    return "weight gradient"


def total(kept):
    """Bytes of all that is kept."""
    return sum(array.nbytes for array in kept.values())


def print_kept(first, second):
    """Two `kept` side by side, in the order of the forward pass."""
    print("\nKept between forward and backward (bytes)\n")
    print(f"{'':24}{'for the':26}{'shape':11}{'vanilla':>9}{'MobileTL':>10}")
    layers = list(dict.fromkeys(name.split(".")[0] for name in first))
    for name in sorted(first | second, key=lambda name: layers.index(name.split(".")[0])):
        shape = "x".join(map(str, (first | second)[name].shape))
        sizes = [f"{k[name].nbytes:,}" if name in k else "-" for k in (first, second)]
        print(f"{name:24}{why(name):26}{shape:11}{sizes[0]:>9}{sizes[1]:>10}")
    print(f"{'sum':61}{total(first):>9,}{total(second):>10,}")
    print(f"MobileTL keeps {100 * (1 - total(second) / total(first)):.1f} % less.")


print_kept(kept, kept_mobiletl)

# %% [markdown]
# The six wide float maps of vanilla are down to two, the inputs of the depthwise and the project
# convolution, which their weight gradients need. (A mask has 13 bytes a channel: 2 x 7 x 7 = 98
# positions fill twelve bytes and two bits of a thirteenth.) Each of the two switches does its part:

# %%
print("\nBytes kept, by switch\n")
for shift_only in (False, True):
    for signs in (False, True):
        bytes_kept = total(forward(x, p, shift_only=shift_only, signs=signs)[1])
        saving = 100 * (1 - bytes_kept / total(kept))
        switches = f"shift_only={shift_only!s:5}  signs={signs!s:5}"
        print(f"{switches}  {bytes_kept:9,} bytes  {saving:4.1f} % less")

# %% [markdown]
# ### Is the backward right?
#
# Take <gy, y>, the sum of all gy * y, as the loss, and move x and all trained parameters along a
# random direction t. The loss then changes at the rate (loss(d) - loss(-d)) / 2d; if `backward`
# gives its derivative, the rate is <grads, t>.


# %%
def slopes(x, p, gy, rng, d=1e-6, **method):
    """Slope of <gy, y> along a random direction: by central differences, and by backward."""
    _, kept = forward(x, p, **method)
    grads = backward(kept, gy, p)
    t = {name: rng.standard_normal(g.shape) for name, g in grads.items()}

    def loss(step):
        moved = {name: value + step * t.get(name, 0) for name, value in p.items()}
        return (gy * forward(x + step * t["x"], moved, **method)[0]).sum()

    return (loss(d) - loss(-d)) / (2 * d), sum((grads[name] * t[name]).sum() for name in t)


gy = rng.standard_normal(y.shape)
print("\nSlope along a random direction\n")
print(f"{'':29}{'differences':>13}{'backward':>13}")
for method in (VANILLA, {"shift_only": True, "signs": False}, MOBILETL):
    by_differences, by_backward = slopes(x, p, gy, np.random.default_rng(1), **method)
    switches = f"shift_only={method['shift_only']!s:5}  signs={method['signs']!s:5}"
    print(f"{switches}{by_differences:13.5f}{by_backward:13.5f}")
    agree = abs(by_backward - by_differences) < 1e-6 * abs(by_differences)
    assert agree or method["signs"], f"backward is not the derivative of forward: {method}"

# %% [markdown]
# The first two agree: freezing changes *which function* is trained, and its gradient is exact. The
# last does not, and should not: the sign rule is a surrogate. How far does it turn the gradient?
# Here is the cosine of the angle between it and the exact gradient of the same forward pass (1:
# same direction, 0: a right angle).

# %%
print("\nThe sign rule's gradient against the exact one\n")
exact = backward(forward(x, p, shift_only=True, signs=False)[1], gy, p)
surrogate = backward(kept_mobiletl, gy, p)
for name in ("project.weight", "depthwise.weight", "expand.weight"):
    a, b = exact[name].ravel(), surrogate[name].ravel()
    print(f"{name:17} cosine {a @ b / (np.linalg.norm(a) * np.linalg.norm(b)):.3f}")

# %% [markdown]
# The project convolution stands above both activations and gets its exact gradient; each activation
# on the way down turns it a little further. (This block is random; a trained one has its own
# angles.)
#
# ## 3. The same block in minitl
#
# `minitl` does the same with fast kernels, for whole networks, and keeps accounts. A *network*
# (here a single block) is given a *method*, which decides what trains and by which rule; a *tape*
# records the forward pass with everything kept, and walks it back.

# %%
import minitl

OURS = {
    "in_channels": CHANNELS,
    "expanded_channels": EXPANDED,
    "out_channels": CHANNELS,
    "kernel": KERNEL,
    "activation": "hard_swish",
    "se_channels": 0,
    "eps": EPS,
    "dtype": "float64",
}


def block(method, **attrs):
    """Our block in minitl with a method applied; `attrs` change the block."""
    net = minitl.networks.irb(**(OURS | attrs))
    return minitl.methods.get(method, blocks=1).apply(net)


# %% [markdown]
# Both sides need a loss. The sum of y would be a poor one: the backward of `project_norm` subtracts
# the mean of `gy`, and of a constant `gy` nothing would be left for the layers below. So we average
# y over its positions, take the channels as logits, and use the cross-entropy with a label an
# image.

# %%
labels = np.array([3, 5])


def loss_and_gy(y, labels):
    """Mean cross-entropy of the pooled y, and its gradient with respect to y."""
    n, height, width, _ = y.shape
    logits = y.mean(axis=(1, 2))
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = exp / exp.sum(axis=1, keepdims=True)
    loss = -np.log(probabilities[np.arange(n), labels]).mean()
    glogits = probabilities.copy()
    glogits[np.arange(n), labels] -= 1
    gy = glogits[:, None, None, :] / (n * height * width)
    return loss, np.broadcast_to(gy, y.shape)


def run_minitl(net, x, labels):
    """Record a forward pass: the tape, the block's output and the loss."""
    tape = minitl.Tape()
    y = net(tape, x)
    pool = minitl.ops.global_avg_pool
    logits = tape.run(pool, y, layer="pool", role="pool")
    return tape, y, minitl.cross_entropy(tape, logits, labels)


# %% [markdown]
# Two methods (vanilla is called `ft-blocks`: it fine-tunes the top blocks, here the only one), four
# comparisons each: outputs, gradients, every kept buffer, and the bytes in the *ledger*, `minitl`'s
# account of what a tape holds. Values must agree to float64 rounding, masks and bytes exactly. (The
# loss keeps probabilities and labels; they are not the block's, so we leave its rows out.)


# %%
def largest_difference(ours, theirs):
    """Of two dictionaries of arrays: the largest difference, relative to an array's maximum."""
    assert ours.keys() == theirs.keys(), f"different names: {ours.keys() ^ theirs.keys()}"
    return max(abs(ours[n] - theirs[n]).max() / abs(theirs[n]).max() for n in ours)


def compare(method, switches):
    """Run the block by hand and in minitl, and check that they agree; returns minitl's ledger."""
    y, kept = forward(x, p, **switches)
    loss, gy = loss_and_gy(y, labels)
    grads = backward(kept, gy, p)
    del grads["x"]  # minitl computes no gradient for the images

    net = block(method)
    net.load_state_dict(p)
    tape, output, minitl_loss = run_minitl(net, x, labels)
    records = [record for record in tape.records if record.layer != "loss"]
    buffers = {
        f"{record.layer}.{tensor}": buffer.array.copy()
        for record in records
        for tensor, buffer in record.saved.buffers.items()
    }
    minitl_grads = tape.backward(minitl_loss)  # also uses the buffers up: hence the copies
    ledger = minitl.accounting.ledger(tape)
    rows = [row for row in ledger.rows if row.layer != "loss"]
    in_ledger = {f"{row.layer}.{row.tensor}": row.bytes for row in rows}

    by_minitl = {"y": output.value, "loss": minitl_loss.value}
    of_outputs = largest_difference({"y": y, "loss": loss}, by_minitl)
    of_grads = largest_difference(grads, minitl_grads)
    of_buffers = largest_difference(kept, buffers)
    print(f"{method:9}  outputs {of_outputs:.0e}  gradients {of_grads:.0e}  kept {of_buffers:.0e}")
    print(f"{'':9}  {total(kept):,} bytes by hand, {sum(in_ledger.values()):,} in the ledger")
    assert of_outputs < 1e-12, f"{method}: the forward pass by hand differs from minitl's"
    assert of_grads < 1e-11, f"{method}: the gradients by hand differ from minitl's"
    assert of_buffers < 1e-12, f"{method}: something else is kept by hand than by minitl"
    by_hand = {name: array.nbytes for name, array in kept.items()}
    assert by_hand == in_ledger, f"{method}: {by_hand} bytes by hand, {in_ledger} in minitl"
    return ledger


print("\nBy hand against minitl: largest relative differences, and bytes\n")
vanilla_ledger = compare("ft-blocks", VANILLA)
mobiletl_ledger = compare("mobiletl", MOBILETL)

# %% [markdown]
# Same outputs, same gradients, same bytes. This is how `minitl` prints what we tabulated by hand,
# here for MobileTL; for vanilla, print `vanilla_ledger`. (The shape of a mask here is that of the
# map it stands for, with 1 bit an element.)

# %%
print("\nminitl's ledger of the block with MobileTL\n")
print(mobiletl_ledger)

# %% [markdown]
# ### The block of the paper
#
# Figure 1 of the paper takes a block apart: 96 -> 576 -> 96 channels, 7x7, batch 8, float32. In
# MobileNetV2's form it has ReLU6, whose slope is 0, 1 and again 0; vanilla keeps 2 bits an element
# (which of the three regions), MobileTL 1. In V3's form it has Hard-Swish, and squeeze-and-excite
# with 144 channels. `minitl` foresees the bytes from shapes alone. We add a form with Hard-Swish
# alone, which is the block we have written by hand, and run that too.

# %%
FULL_SIZE = {"in_channels": 96, "expanded_channels": 576, "out_channels": 96, "kernel": 5}


def foreseen(method, **attrs):
    """Bytes that the full-size block keeps, from shapes alone."""
    net = block(method, **FULL_SIZE, dtype="float32", **attrs)
    return minitl.accounting.predict(net, batch=8, resolution=7).kept_bytes


def print_line(form, vanilla, mobiletl, published=""):
    saving = f"{100 * (1 - mobiletl / vanilla):.3f} %"
    print(f"{form:27}{vanilla:>9,}{mobiletl:>11,}{saving:>11}{published and f'{published:>11}'}")


full_p = {name: a.astype(np.float32) for name, a in random_block(rng, 96, 576, 96, 5).items()}
full_x = rng.standard_normal((8, 7, 7, 96), np.float32)
by_hand = [total(forward(full_x, full_p, **method)[1]) for method in (VANILLA, MOBILETL)]

print("\n96 -> 576 -> 96 channels, 7x7, batch 8: bytes kept, and the saving\n")
print(f"{'':27}{'vanilla':>9}{'MobileTL':>11}{'computed':>11}{'published':>11}")
for form, attrs, published in [
    ("V2: ReLU6", {"activation": "relu6"}, "46.3 %"),
    ("V3: Hard-Swish, SE 144", {"se_channels": 144}, "53.3 %"),
    ("Hard-Swish alone", {}, ""),
]:
    print_line(form, foreseen("ft-blocks", **attrs), foreseen("mobiletl", **attrs), published)
print_line("Hard-Swish alone, by hand", *by_hand)
assert by_hand == [foreseen("ft-blocks"), foreseen("mobiletl")], "by hand and foreseen bytes differ"

# %% [markdown]
# Cut off after one decimal, our savings are the published ones. And under MobileTL, Hard-Swish
# keeps exactly what ReLU6 does: a bit is a bit.
#
# ## 4. Exercises
#
# Work each one out on paper first; then uncomment the line and compare.
#
# **a. ReLU6.** Replace Hard-Swish by ReLU6 in our small block. Vanilla keeps 2-bit codes. Which
# rows change, and to how many bytes? What does MobileTL save now? And does the exact slope of ReLU6
# really take two bits? (`minitl.ops.relu6.rules` has four names.)

# %%
# print(minitl.accounting.predict(block("ft-blocks", activation="relu6"), batch=2, resolution=7))

# %% [markdown]
# **b. Squeeze-and-excite** with 16 channels, between `depthwise_act` and `project`: average the map
# over its positions; 1x1 convolution to 16 channels, ReLU; 1x1 convolution back to 48, hard-sigmoid
# (0 below -3, 1 above 3, a straight line between); multiply the map by the result, the *gate*,
# channel by channel. Which buffers are new, and which of them is not small? Then write it by hand,
# if you like: two `pointwise` with a bias, two activations with one-bit slopes, and a product, each
# of whose two gradients needs the other factor.

# %%
# print(minitl.accounting.predict(block("mobiletl", se_channels=16), batch=2, resolution=7))

# %% [markdown]
# **c. A frozen block.** Nothing in the block is trained, and all its norms are frozen. Which
# buffers vanish if something *below* the block is trained, so that a gradient must pass through?
# And which if nothing is? (A `Var` is a value on its way along the tape; its flag says whether it
# wants a gradient. A network as built trains nothing until a method is applied.)


# %%
def frozen(passes_gradient):
    """The ledger of our block, all frozen."""
    tape = minitl.Tape()
    minitl.networks.irb(**OURS).run(tape, minitl.Var(x, needs_grad=passes_gradient))
    return minitl.accounting.ledger(tape)


# print(frozen(passes_gradient=True))
# print(frozen(passes_gradient=False))
