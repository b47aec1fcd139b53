"""A register tile as a Numba value: `rows` positions x `vecs` vectors of channels, held in registers.

A kernel written with it reads as what it is,

    t = zeros(rows, wide(vecs, bits, masked))
    for k in range(inputs):
        t = add_outer(t, x, (m * inputs + k), inputs, w, k * width, left)
    store(t, y, m * outputs + j, outputs, left)

and compiles to the loop that a careful assembler programmer would write. A map is passed as an
address (an int) and offsets count elements: an *array* that is passed on would be counted by its
references, and each such call spills every register of the tile.

The last vector of a `masked` tile may reach beyond the channels there are: `left` is how many there
are from the tile's first channel on, and lanes beyond are neither read nor written. Widths are
types (`wide`), so that each kernel is compiled for the width it runs at. All arithmetic rounds
operation by operation; only `add_outer` and the taps use a fused multiply-add.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

from minitl.kernels.compiled.raw import I8, I32, I64, written
from minitl.kernels.formula import Traced
from minitl.kernels.target import target

FLOATS = {32: ir.FloatType(), 64: ir.DoubleType()}
NAMES = {32: "float32", 64: "float64"}
ROWS = 8  # positions of a tile that goes over a map once: their codes, of any number of bits, are whole bytes


class Wide(types.Type):
    """The type of a width: `vecs` vectors, perhaps `half`, of floats of that many bits, the last perhaps masked."""

    def __init__(self, vecs: int, bits: int, masked: bool, half: bool) -> None:
        self.vecs, self.bits, self.masked = vecs, bits, masked
        self.lanes = target().lanes(bits // 8) >> half
        super().__init__(f"Wide({vecs},{bits},{masked},{half})")


class TileType(types.Type):
    """The type of a tile."""

    def __init__(self, rows: int, width: Wide) -> None:
        self.rows, self.vecs, self.bits, self.masked = rows, width.vecs, width.bits, width.masked
        self.lanes = width.lanes
        super().__init__(f"Tile({rows},{width.name})")

    @property
    def vector(self) -> ir.VectorType:
        """LLVM's type of one of its vectors."""
        return ir.VectorType(FLOATS[self.bits], self.lanes)


class TileModel(models.PrimitiveModel):
    """A tile is an LLVM array of vectors."""

    def __init__(self, dmm: Any, t: TileType) -> None:
        super().__init__(dmm, t, ir.ArrayType(t.vector, t.rows * t.vecs))


register_model(Wide)(models.OpaqueModel)
register_model(TileType)(TileModel)


class Writer:
    """Writes instructions on the vectors of one tile type."""

    def __init__(self, builder: ir.IRBuilder, tile: TileType) -> None:
        self.b, self.tile, self.vector, self.lanes = builder, tile, tile.vector, tile.lanes

    def at(self, address: ir.Value, *offsets: Any, kind: ir.Type | None = None) -> ir.Value:
        """The place that many elements of `kind` after the address."""
        place = self.b.inttoptr(address, (kind or FLOATS[self.tile.bits]).as_pointer())
        for offset in offsets:
            place = self.b.gep(place, [offset if isinstance(offset, ir.Value) else I64(offset)])
        return place

    def splat(self, value: ir.Value) -> ir.Value:
        """A vector of copies of `value`."""
        none = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        return self.b.shuffle_vector(self.b.insert_element(none, value, I32(0)), none, zeros)

    def constant(self, number: float, kind: ir.Type | None = None) -> ir.Value:
        """A vector of copies of a number."""
        return ir.Constant(ir.VectorType(kind or FLOATS[self.tile.bits], self.lanes), [number] * self.lanes)

    def masks(self, left: ir.Value) -> list[ir.Value | None]:
        """Which lanes of each vector there are; None stands for all."""
        if not self.tile.masked:
            return [None] * self.tile.vecs
        last = (self.tile.vecs - 1) * self.lanes
        counted = ir.Constant(ir.VectorType(I32, self.lanes), list(range(last, last + self.lanes)))
        mask = self.b.icmp_signed("<", counted, self.splat(self.b.trunc(left, I32)))
        return [*[None] * (self.tile.vecs - 1), mask]

    def load(self, place: ir.Value, mask: ir.Value | None, kind: ir.Type | None = None) -> ir.Value:
        """The vector at `place`, 0 in lanes that are not there."""
        kind = kind or FLOATS[self.tile.bits]
        vector = ir.VectorType(kind, self.lanes)
        place = self.b.bitcast(place, vector.as_pointer())
        if mask is None:
            loaded = self.b.load(place)
            loaded.align = _alignment(kind)
            return loaded
        return self._masked("load", vector, place, (place, I32(_alignment(kind)), mask, ir.Constant(vector, None)))

    def save(self, value: ir.Value, place: ir.Value, mask: ir.Value | None) -> None:
        """Write the lanes that are there."""
        kind = value.type.element
        place = self.b.bitcast(place, value.type.as_pointer())
        if mask is None:
            self.b.store(value, place).align = _alignment(kind)
        else:
            self._masked("store", value.type, place, (value, place, I32(_alignment(kind)), mask))

    def _masked(self, what: str, vector: ir.VectorType, place: ir.Value, arguments: tuple[ir.Value, ...]) -> ir.Value:
        result = vector if what == "load" else ir.VoidType()
        signature = ir.FunctionType(result, [a.type for a in arguments])
        name = f"llvm.masked.{what}.v{self.lanes}{_letter(vector.element)}.p0"
        return self.b.call(cgutils.get_or_insert_function(self.b.module, signature, name), arguments)

    def call(self, name: str, *values: ir.Value) -> ir.Value:
        """LLVM's function of that name on vectors."""
        signature = ir.FunctionType(self.vector, [v.type for v in values])
        name = f"llvm.{name}.v{self.lanes}{_letter(self.vector.element)}"
        return self.b.call(cgutils.get_or_insert_function(self.b.module, signature, name), values)

    def row(self, address: ir.Value, at: ir.Value, left: ir.Value) -> list[ir.Value]:
        """The vectors that begin at element `at`: as many as a row of the tile has."""
        return [self.load(self.at(address, at, j * self.lanes), mask) for j, mask in enumerate(self.masks(left))]

    def cast(self, v: ir.Value, kind: ir.Type) -> ir.Value:
        """The vector in another precision."""
        if v.type.element == kind:
            return v
        return (self.b.fpext if kind == FLOATS[64] else self.b.fptrunc)(v, ir.VectorType(kind, self.lanes))

    def trace(self, value: ir.Value) -> Traced:
        """A vector as a formula's argument."""
        return Traced(self.emit, value, NAMES[self.tile.bits])

    def emit(self, name: str, *operands: Any) -> ir.Value:
        """Write a formula's instruction `name`."""
        b, values = self.b, [o if isinstance(o, ir.Value) else self.constant(float(o)) for o in operands]
        if name in ("add", "sub", "mul", "div"):
            return getattr(b, f"f{name}")(*values)
        if name in ("lt", "le", "gt", "ge"):
            return b.fcmp_ordered({"lt": "<", "le": "<=", "gt": ">", "ge": ">="}[name], *values)
        if name == "where":
            return b.select(*values)
        if name == "neg":
            return b.fneg(*values)
        if name == "sqrt":
            return self.call("sqrt", *values)
        assert name == "two_to", name
        whole, bias, shift = (I32, 127, 23) if self.tile.bits == 32 else (I64, 1023, 52)
        n = b.fptosi(values[0], ir.VectorType(whole, self.lanes))
        return b.bitcast(b.shl(b.add(n, self.constant(bias, whole)), self.constant(shift, whole)), self.vector)

    def map(self, t: ir.Value, f: Callable[[ir.Value, int, int], ir.Value]) -> ir.Value:
        """The tile whose vector (row, vec) is f(vector, row, vec)."""
        for n in range(self.tile.rows * self.tile.vecs):
            t = self.b.insert_value(t, f(self.b.extract_value(t, n), *divmod(n, self.tile.vecs)), n)
        return t

    def each(self, t: ir.Value) -> list[tuple[ir.Value, int, int]]:
        """Every (vector, row, vec) of a tile."""
        count = self.tile.rows * self.tile.vecs
        return [(self.b.extract_value(t, n), *divmod(n, self.tile.vecs)) for n in range(count)]


def _alignment(kind: ir.Type) -> int:
    return 1 if kind == I8 else 8 if kind == FLOATS[64] else 4


def _letter(kind: ir.Type) -> str:
    return "f32" if kind == FLOATS[32] else "f64" if kind == FLOATS[64] else f"i{kind.width}"


def _same(*kinds: Any) -> Any:
    return next(kind for kind in kinds if isinstance(kind, TileType))


def nothing(*_: Any) -> Any:
    """The result of what only writes."""
    return types.void


def tile_op(result: Callable[..., Any] = _same, **options: bool) -> Callable[[Callable[..., Any]], Any]:
    """An intrinsic from `f(writer, literals, *values)`: `literals` maps the names of literal arguments to their values.

    The result's type is the tile argument's, unless `result` says otherwise.
    """

    def wrap(f: Callable[..., Any]) -> Any:
        names = list(inspect.signature(f).parameters)[2:]

        def write(builder: Any, kinds: Any, values: Any) -> Any:
            literals = {n: k.literal_value for n, k in zip(names, kinds, strict=True) if hasattr(k, "literal_value")}
            return f(Writer(builder, _same(*kinds)), literals, *values)

        return written(names, result, write, **options)

    return wrap


literal_op = partial(tile_op, prefer_literal=True)


@intrinsic(prefer_literal=True)
def wide(typingctx: Any, vecs: Any, bits: Any, how: Any) -> Any:
    """A width: that many vectors of floats of that many bits; 1 in `how`: the last is masked; 2: they are half ones."""
    half, masked = divmod(how.literal_value, 2)
    width = Wide(vecs.literal_value, bits.literal_value, bool(masked), bool(half))
    return width(vecs, bits, how), lambda c, b, s, a: c.get_dummy_value()


@intrinsic(prefer_literal=True)
def zeros(typingctx: Any, rows: Any, width: Any) -> Any:
    """A tile of +0."""
    t = TileType(rows.literal_value, width)
    return t(rows, width), lambda c, b, s, a: ir.Constant(ir.ArrayType(t.vector, t.rows * t.vecs), None)


@tile_op()
def read(w: Writer, _: Any, t: Any, a: Any, at: Any, step: Any, left: Any) -> Any:
    """The tile whose row i is a[at + i step :]."""
    masks = w.masks(left)
    return w.map(t, lambda v, i, j: w.load(w.at(a, at, w.b.mul(step, I64(i)), j * w.lanes), masks[j]))


@tile_op()
def turned(w: Writer, _: Any, t: Any) -> Any:
    """A tile of as many rows as its one vector has lanes, with rows and lanes exchanged: in blocks of 1, 2, 4, ..."""
    rows, count = [v for v, _, _ in w.each(t)], w.lanes
    for step in (1 << n for n in range(count.bit_length() - 1)):
        low, high = (
            ir.Constant(ir.VectorType(I32, count), [n + other if n & step else n + own for n in range(count)])
            for own, other in ((0, count - step), (step, count))
        )
        for i in (i for i in range(count) if not i & step):
            a, b = rows[i], rows[i + step]
            rows[i], rows[i + step] = w.b.shuffle_vector(a, b, low), w.b.shuffle_vector(a, b, high)
    return w.map(t, lambda v, i, j: rows[i])


@tile_op(nothing)
def store(w: Writer, _: Any, t: Any, a: Any, at: Any, step: Any, left: Any) -> None:
    """a[at + i step :] = row i."""
    masks = w.masks(left)
    for v, i, j in w.each(t):
        w.save(v, w.at(a, at, w.b.mul(step, I64(i)), j * w.lanes), masks[j])


@tile_op()
def fill(w: Writer, _: Any, t: Any, a: Any, at: Any, left: Any) -> Any:
    """The tile whose every row is a[at :]: a convolution's bias."""
    row = w.row(a, at, left)
    return w.map(t, lambda v, i, j: row[j])


@tile_op()
def add_outer(w: Writer, _: Any, t: Any, a: Any, at: Any, step: Any, c: Any, ct: Any, left: Any) -> Any:
    """t + a[at + i step] c[ct :] for each row i, a fused multiply-add each."""
    vectors = w.row(c, ct, left)
    scalars = [w.splat(w.b.load(w.at(a, at, w.b.mul(step, I64(i))))) for i in range(w.tile.rows)]
    return w.map(t, lambda v, i, j: w.call("fma", scalars[i], vectors[j], v))


@tile_op()
def add_outer_some(
    w: Writer, _: Any, t: Any, a: Any, at: Any, first: Any, stop: Any, c: Any, ct: Any, left: Any
) -> Any:  # fmt: skip
    """t + a[at + i] c[ct :] for rows first <= i < stop; the others, whose a[at + i] are not read, stay as they are."""
    vectors = w.row(c, ct, left)
    there = [
        w.b.and_(w.b.icmp_signed("<=", first, I64(i)), w.b.icmp_signed("<", I64(i), stop)) for i in range(w.tile.rows)
    ]
    scalars = [
        w.splat(w.b.load(w.at(a, w.b.select(here, w.b.add(at, I64(i)), I64(0))))) for i, here in enumerate(there)
    ]
    return w.map(t, lambda v, i, j: w.b.select(there[i], w.call("fma", scalars[i], vectors[j], v), v))


@intrinsic
def fma(typingctx: Any, x: Any, y: Any, z: Any) -> Any:
    """x y + z, rounded once: what plain loops are written with."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = values[0].type
        name = f"llvm.fma.{_letter(kind)}"
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
        return builder.call(function, values)

    return x(x, x, x), generate


def guarded(w: Writer, condition: Any, sums: dict[int, Any], f: Callable[[dict[int, Any]], dict[int, Any]]) -> Any:
    """`sums` after f where the condition holds (None: always), else as they are; a branch keeps them in registers."""
    if condition is None:
        return f(dict(sums))
    before, out = w.b.block, dict(sums)
    with w.b.if_then(condition, likely=True):
        new = f(dict(sums))
        inside = w.b.block
    for key, value in new.items():
        if value is not sums[key]:
            phi = w.b.phi(value.type)
            phi.add_incoming(sums[key], before)
            phi.add_incoming(value, inside)
            out[key] = phi
    return out
