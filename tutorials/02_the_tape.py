# %% [markdown]
# # 2. How does a list of operations become gradients, and what does it hold meanwhile?
#
# *Needs: [1, one operation](01_one_operation.py). Takes 25 minutes. Next: any of [3,
# convolutions](03_convolutions.py), [4, batch norm](04_batch_norm.py) and [5, activations in
# bits](05_activations_in_bits.py).*
#
# In tutorial 1 each operation had a `forward` that writes to `kept`, and a `backward` that reads it.
# Put several in a row, and backward means: call the backwards in reverse order, and hand to each the
# gradient that the one above it gave. Here is y = w x, then exp, then the sum, by hand. A backward
# gives a tuple now, one gradient per input.

# %%
import numpy as np


def product(x, w, kept):
    kept["x"] = x
    return x * w


def product_backward(kept, gy, w):
    return gy * w, (gy * kept["x"]).sum(axis=0)  # gx, gw


def exp(x, kept):
    kept["y"] = np.exp(x)
    return kept["y"]


def exp_backward(kept, gy):
    return (gy * kept["y"],)


def total(x, kept):
    kept["shape"] = x.shape
    return x.sum()


def total_backward(kept, gy):
    return (np.full(kept["shape"], gy),)


# %%
rng = np.random.default_rng(0)
x, w = rng.standard_normal((5, 3)), rng.standard_normal(3)

kept_product, kept_exp, kept_total = {}, {}, {}
h = product(x, w, kept_product)
h = exp(h, kept_exp)
L = total(h, kept_total)

(g,) = total_backward(kept_total, 1.0)  # dL / dL = 1
(g,) = exp_backward(kept_exp, g)
gx, gw = product_backward(kept_product, g, w)
print("gw", gw.round(4))

# %% [markdown]
# Nothing in these lines needs a human. The last three lines are the three forward lines in reverse
# order, so a program can write them down while the forward pass runs. Such a list is called a *tape*,
# or a Wengert list (R. E. Wengert, 1964, [DOI 10.1145/355586.364791](https://doi.org/10.1145/355586.364791)).
#
# ## A tape in twenty lines
#
# One record per operation: its name, its backward, what it kept, and where its inputs came from: the
# *number* of the record that made one, or the name of a parameter or of the input. Note what a record
# does not have: any array outside `kept`. A value that nobody keeps is gone as soon as the next
# operation has read it.

# %%
from typing import Any, NamedTuple

from course.tape import Record, backward  # (name, backward, kept, sources); the walk back


class Value(NamedTuple):
    array: Any
    source: Any  # the number of the record that made it, or a name


class Tape:
    def __init__(self, parameters):
        self.records, self.parameters = [], parameters

    def run(self, name, forward, backward, *inputs):
        """Inputs are values, or names of parameters."""
        kept = {}
        arrays = [self.parameters[i] if isinstance(i, str) else i.array for i in inputs]
        sources = tuple(i if isinstance(i, str) else i.source for i in inputs)
        y = forward(*arrays, kept)
        self.records.append(Record(name, backward, kept, sources))
        return Value(y, len(self.records) - 1)


tape = Tape({"w": w})
h = tape.run("product", product, product_backward, Value(x, "x"), "w")
h = tape.run("exp", exp, exp_backward, h)
loss = tape.run("total", total, total_backward, h)
for number, record in enumerate(tape.records):
    print(number, record.name, "of", record.sources, "keeps", list(record.kept))

# %% [markdown]
# And back. A dictionary `pending` holds the gradients that have been sent but not yet used; at first
# `{loss: 1}`. Go through the records from the last to the first. Take the record's gradient out of
# `pending`, call its backward, and send each result to its source. When all is done, what is left
# in `pending` belongs to names: the gradients of parameters and inputs.
#
# You write that walk in exercise 2a. Until then the course lends you one, `backward(records, loss,
# parameters)`. (It takes two things more, which we use further down: `gy`, the loss's own gradient,
# 1 if nothing is said, and `after_each`, which it calls after each record.)

# %%
gradients = backward(tape.records, loss.source, tape.parameters)
print(list(gradients))
assert abs(gradients["w"] - gw).max() < 1e-12
assert abs(gradients["x"] - gx).max() < 1e-12

# %% [markdown]
# ## One value, two uses
#
# Now let z = w x be used twice: L = sum(z^2) + sum(relu(z)). Each use sends a gradient back to z.
# **Predict**: what must z do with the two?

# %%
from course.differences import check_gradient  # your exercise 1b


def square(x, kept):
    kept["x"] = x
    return x**2


def square_backward(kept, gy):
    return (gy * 2 * kept["x"],)


def relu(x, kept):
    kept["mask"] = np.packbits(x > 0, axis=0, bitorder="little")
    return np.maximum(x, 0)


def relu_backward(kept, gy):
    return (gy * np.unpackbits(kept["mask"], axis=0, count=len(gy), bitorder="little"),)


def add(a, b, kept):
    return a + b


def add_backward(kept, gy):
    return gy, gy


# %%
def record_two_uses(x):
    tape = Tape({"w": w})
    z = tape.run("product", product, product_backward, Value(x, "x"), "w")
    a = tape.run("square", square, square_backward, z)
    b = tape.run("relu", relu, relu_backward, z)
    c = tape.run("add", add, add_backward, a, b)
    return tape, tape.run("total", total, total_backward, c)


def forward(x, kept):
    kept["tape"], loss = record_two_uses(x)
    return loss.array


def by_tape(kept, gy):
    tape = kept["tape"]
    return backward(tape.records, len(tape.records) - 1, tape.parameters, gy)["x"]


def last_one_wins(kept, gy):
    records = kept["tape"].records
    (gz,) = square_backward(records[1].kept, np.full(x.shape, gy))  # what relu sent is lost
    return product_backward(records[0].kept, gz, w)[0]


for walk in (by_tape, last_one_wins):
    print(f"{walk.__name__:14} right: {check_gradient(forward, walk, x, np.random.default_rng(1))}")
assert check_gradient(forward, by_tape, x, rng)
assert not check_gradient(forward, last_one_wins, x, rng)

# %% [markdown]
# They **add**: z moves L in two ways, and the effects sum. To keep only the last gradient instead of
# the sum is the commonest fault in home-made autograd engines; in networks whose values are all used
# once it stays hidden. Here is the tape as a picture. Look for the records without a bar: they keep
# nothing.

# %%
from course.figures import BLUE, GREEN, GREY, RED, figure, finish

tape, loss = record_two_uses(x)
held = [sum(a.nbytes for a in r.kept.values() if hasattr(a, "nbytes")) for r in tape.records]
places = [(0, 0), (-1, 1), (1, 1), (0, 2), (0, 3)]

fig, (graph, bars) = figure(2, height=3.4, gridspec_kw={"width_ratios": [3, 2]})
for record, (column, row) in zip(tape.records, places, strict=True):
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": GREY}
    graph.text(column, row, record.name, ha="center", va="center", bbox=box, zorder=3)
    below = [places[s] if isinstance(s, int) else (0, -1) for s in record.sources if s != "w"]
    for start in below:
        for color, ends, shift in [
            (BLUE, (start, (column, row)), -0.09),
            (RED, ((column, row), start), 0.09),
        ]:
            (x0, y0), (x1, y1) = ends
            arrow = {"arrowstyle": "->", "color": color, "shrinkA": 12, "shrinkB": 12}
            graph.annotate("", (x1 + shift, y1), (x0 + shift, y0), arrowprops=arrow)
graph.text(0, -1, "x", ha="center", va="center", zorder=3)
finish(graph, "values up (blue), gradients down (red)", xlim=(-1.8, 1.8), ylim=(-1.3, 3.5))
graph.set_axis_off()
bars.barh([f"{n} {r.name}" for n, r in enumerate(tape.records)], held, color=BLUE)
finish(bars, "kept for backward", "bytes")

# %% [markdown]
# ## Weigh it
#
# All that the tape holds is in `kept`, so the *ledger*, the account of it, is one line. But mind
# views. NumPy arrays share memory: a slice is small, and keeps the whole array alive; and two records
# may keep the same array, as exp keeps its y and the next operation its x. A buffer is counted
# **once, at its owner**.

# %%
tape = Tape({})
h = tape.run("exp", exp, exp_backward, Value(x, "x"))
h = tape.run("square", square, square_backward, h)  # its x is the y of exp
arrays = [array for record in tape.records for array in record.kept.values()]
print("sum over arrays:", sum(a.nbytes for a in arrays), "bytes")
print("each owner once:", sum({id(a): a.nbytes for a in arrays}.values()), "bytes")
assert arrays[0] is arrays[1]
assert x.nbytes == 120

whole = np.zeros((100, 12))
part = whole[:1]
print(f"a slice of {part.nbytes} bytes keeps {part.base.nbytes:,} bytes alive")
assert part.base is whole

# %% [markdown]
# ## Keep only what somebody wants
#
# So far every record keeps what *any* of its gradients needs. But if w is not trained, nobody wants
# gw, and nobody needs x. So the tape works out, from what is trained, which gradients are wanted
# (`needs`, one flag per input) and tells forward, which keeps accordingly. A value needs a gradient
# if something trained stands below it.

# %%
from functools import partial


class Value(NamedTuple):
    array: Any
    source: Any
    needs: bool = False  # does anybody want its gradient?


class FrugalTape(Tape):
    def __init__(self, parameters, trained):
        super().__init__(parameters)
        self.trained = trained

    def run(self, name, forward, backward, *inputs):
        kept = {}
        names = [i for i in inputs if isinstance(i, str)]
        values = [i for i in inputs if not isinstance(i, str)]
        arrays = [v.array for v in values] + [self.parameters[n] for n in names]
        needs = [v.needs for v in values] + [n in self.trained for n in names]
        y = forward(*arrays, kept, needs)
        sources = (*(v.source for v in values), *names)
        self.records.append(Record(name, partial(backward, needs=needs), kept, sources))
        return Value(y, len(self.records) - 1, any(needs))


# %% [markdown]
# A network of two layers: 4 samples, 3 inputs, 5 hidden values, 2 classes, in float64. Its operations
# keep only what `needs` asks for. `linear` is y = x W^T, with x (M, I) and w (O, I), so gx = gy W and
# gw = gy^T x. The loss is the mean of -log p[label], where p = exp(z) / sum(exp(z)): per sample that is
# log(sum(exp(z))) - z[label], whose slope along z is p, less 1 at the label. So the gradient is
# p - onehot(labels), over the number of samples.


# %%
def linear(x, w, kept, needs):
    if needs[1]:
        kept["x"] = x
    return x @ w.T


def linear_backward(kept, gy, w, needs):
    return (gy @ w if needs[0] else None), (gy.T @ kept["x"] if needs[1] else None)


def frugal_relu(x, kept, needs):
    return relu(x, kept if needs[0] else {})


def frugal_relu_backward(kept, gy, needs):
    return relu_backward(kept, gy)


def cross_entropy(z, labels, kept, needs):
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    kept["probabilities"], kept["labels"] = p, labels
    return -np.log(p[np.arange(len(z)), labels]).mean()


def cross_entropy_backward(kept, gy, needs):
    p, labels = kept["probabilities"], kept["labels"]
    return gy * (p - np.eye(p.shape[1])[labels]) / len(p), None


# %% [markdown]
# **Predict**, in bytes, before you run the next cell. A float64 takes 8 bytes, a label too; ReLU
# keeps one bit per element, packed along the samples. What does the tape hold if both layers train?
# If only the first does? If only the second does?

# %%
x = rng.standard_normal((4, 3))
labels = np.array([0, 1, 1, 0])
assert x.itemsize == labels.itemsize == 8
weights = {"fc1": rng.standard_normal((5, 3)), "fc2": rng.standard_normal((2, 5))}


def held_by(tape):
    return sum(array.nbytes for record in tape.records for array in record.kept.values())


def record_net(trained, after_each=lambda tape: None):
    tape, h = FrugalTape(weights, trained), Value(x, "x")
    for name, op, back, *others in [
        ("fc1", linear, linear_backward, "fc1"),
        ("act", frugal_relu, frugal_relu_backward),
        ("fc2", linear, linear_backward, "fc2"),
        ("loss", cross_entropy, cross_entropy_backward, Value(labels, "labels")),
    ]:
        h = tape.run(name, op, back, h, *others)
        after_each(tape)
    return tape, h


CASES = {"both train": {"fc1", "fc2"}, "fc1 trains": {"fc1"}, "fc2 trains": {"fc2"}}
held = {}
for case, trained in CASES.items():
    tape, _ = record_net(trained)
    rows = [f"{r.name}.{t} {a.nbytes}" for r in tape.records for t, a in r.kept.items()]
    held[case] = held_by(tape)
    print(f"{case}: {held[case]} bytes = " + ", ".join(rows))
assert list(held.values()) == [357, 197, 256]

# %% [markdown]
# 357 bytes; 197 bytes if only fc1 trains: fc2 is frozen and does not keep its x, 160 bytes; 256 bytes
# if only fc2 trains: below it nothing is kept, for no gradient goes there. Note that in the middle
# case the gradient still *passes* fc2, and that costs nothing: gx needs w. **What is kept follows
# from what is trained**; nobody has to say it, and nobody can get it wrong.
#
# Backward needs a record once. So the walk empties each record as it passes, and a tape can be walked
# only once. Look at the shape: memory climbs in forward, turns at the loss, and comes down. (Two of the
# curves are moved by 2 bytes, so that all can be seen.)


# %%
def held_during(trained):
    """Bytes held during each operation: of forward when it is done, of backward before it frees."""
    forward, back = [], []
    tape, loss = record_net(trained, lambda tape: forward.append(held_by(tape)))
    backward(tape.records, loss.source, weights, after_each=lambda: back.append(held_by(tape)))
    assert held_by(tape) == 0
    back += [0] * (4 - len(back))  # nothing below wants a gradient
    return np.array([*forward, forward[-1], *back[:3]])


fig, ax = figure(height=3)
for (case, trained), color, aside in zip(
    CASES.items(), (BLUE, RED, GREEN), (-2, 0, 2), strict=True
):
    ax.stairs(held_during(trained) + aside, color=color, label=case, linewidth=1.5)
ax.axvline(4, color=GREY, linewidth=0.8)
ax.set_xticks(np.arange(8) + 0.5, ["fc1", "act", "fc2", "loss", "loss", "fc2", "act", "fc1"])
finish(
    ax, "Held by the tape: forward on the left, backward on the right", "", "bytes", "upper left"
)

# %% [markdown]
# ## minitl's tape
#
# `minitl.Tape` is the same idea: `run` takes an op, its inputs and parameters, a layer's name and its
# role. Same gradients, same bytes, row by row. (The first calls compile some kernels.)

# %%
import minitl
from minitl.parameters import Parameter

tape = minitl.Tape()
fc1, fc2 = (Parameter(name, weights[name], trained=True) for name in ("fc1", "fc2"))
h = tape.run(minitl.ops.linear, minitl.Var(x), fc1, layer="fc1", role="classifier")
h = tape.run(minitl.ops.relu, h, layer="act", role="classifier_act")
h = tape.run(minitl.ops.linear, h, fc2, layer="fc2", role="classifier")
loss = minitl.cross_entropy(tape, h, labels)

ledger = minitl.accounting.ledger(tape)
for row in ledger.rows:
    print(f"{row.layer:5} {row.tensor:14}{row.bytes:4}  for {', '.join(row.needed_for)}")
assert [row.bytes for row in ledger.rows] == [96, 5, 160, 64, 32]
assert ledger.kept_bytes == held["both train"] == 357

by_minitl = tape.backward(loss)
ours, last = record_net({"fc1", "fc2"})
by_hand = backward(ours.records, last.source, weights)
assert all(abs(by_minitl[name] - by_hand[name]).max() < 1e-12 for name in weights)

# %% [markdown]
# After backward the records are empty. A second walk is refused, with an error that says so and what
# to do instead; the ledger still says what was held.

# %%
try:
    tape.backward(loss)
except minitl.MinitlError:
    print("a second walk: refused")
assert minitl.accounting.ledger(tape).kept_bytes == 357

# %% [markdown]
# ## Three numbers that agree
#
# For a whole network `minitl` gives the kept bytes in three ways: *predicted* from shapes alone, with
# nothing computed; *held* by the tape, its ledger; *measured* as memory that NumPy really has, by
# Python's own `tracemalloc`. (A whole network is compiled here for the first time: up to half a
# minute, once.)

# %%
net = minitl.networks.digits_irb(num_classes=5, seed=0)
net = minitl.methods.get("mobiletl", blocks=2).apply(net)
predicted = minitl.accounting.predict(net, batch=4, resolution=24).kept_bytes
measured = minitl.accounting.measure(net, batch=4, resolution=24)
print(f"predicted {predicted:,}, held {measured.held_bytes:,}, measured {measured.traced_bytes:,}")
assert predicted == measured.held_bytes == measured.traced_bytes

# %% [markdown]
# Equal to the byte. That is what the word *accounted* means in `minitl`, and it is tested for random
# networks and methods.
#
# **Why do I not see such savings in my framework?** [A question asked
# often](https://github.com/mit-han-lab/tinyml/issues/12): only biases were trained, and memory fell by
# less than a tenth. There, what is kept is decided by the operation, not by what is trained: PyTorch's
# convolutions keep their input, and its batch norms in evaluation mode too, even where the weight is
# frozen ([pytorch#133566](https://github.com/pytorch/pytorch/issues/133566)). Freezing a layer then
# saves its gradient, but no activation.
#
# ## What you can now do
#
# Read any autograd engine: it is a list of records and a walk from its end. Say what it holds, from
# what is trained.
#
# ## Exercises
#
# **2a.** The walk back. A record has `name`, `backward`, `kept` and `sources`; a source is a record's
# number or a name. `record.backward(record.kept, gy, *used)` gives one gradient per source (None, where
# nobody wants it), where `used` are the parameters among its sources. Records that the loss does not
# depend on are never sent a gradient: pass them by.

# %%
from course import check


def backward_of_tape(records, loss, parameters):
    """Gradients by name; `loss` is the number of the last record, `parameters` are arrays by name."""
    raise NotImplementedError  # yours


check("2a", backward_of_tape)

# %% [markdown]
# **2b.** The bytes that some arrays keep alive: each block of memory once, at its owner. `a.base` is
# the array that a view was made from, or None.


# %%
def kept_bytes(arrays):
    """Bytes of memory that a list of arrays keeps alive."""
    raise NotImplementedError  # yours


check("2b", kept_bytes)

# %% [markdown]
# **2c.** Which layers must pass a gradient on to the layer below? `layers` are names, from the
# input to the loss; `trained` is the set of those with something to train. When it is right, predict
# the 197 and the 256 with it.


# %%
def needed(layers, trained):
    """One boolean per layer: does anybody want the gradient of its input?"""
    raise NotImplementedError  # yours


check("2c", needed)

# %% [markdown]
# Next: [3, convolutions](03_convolutions.py), [4, batch norm](04_batch_norm.py) or [5, activations in
# bits](05_activations_in_bits.py), in any order.
#
# So how does a list of operations become gradients? By walking it from its end and adding what each
# value is sent; meanwhile it holds what the wanted gradients need, which follows from what is trained.
