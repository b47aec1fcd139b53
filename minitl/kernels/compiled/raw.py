"""Memory by its address, for kernels: their arguments, views of maps, single numbers, a counter, a call.

Every kernel begins with `a, b, ... = arguments(p, count, version)`. `version` is `compile.sources()`,
closed over: what a function closes over is part of the name under which Numba keeps it on disk.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

I64, I32, I8 = (ir.IntType(bits) for bits in (64, 32, 8))


@intrinsic(prefer_literal=True)
def arguments(typingctx: Any, address: Any, count: Any, version: Any) -> Any:
    """The `count` int64 numbers at an address."""
    many = count.literal_value

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        place = b.inttoptr(values[0], I64.as_pointer())
        loaded = [b.load(b.gep(place, [I64(i)])) for i in range(many)]
        return context.make_tuple(b, signature.return_type, loaded)

    return types.UniTuple(types.int64, many)(address, count, version), generate


@intrinsic
def pointer(typingctx: Any, address: Any) -> Any:
    """The address as a pointer: `numba.carray(pointer(address), shape, dtype)` is a view of an array there."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        return b.inttoptr(values[0], I8.as_pointer())

    return types.voidptr(types.int64), generate


@intrinsic
def load64(typingctx: Any, address: Any) -> Any:
    """The int64 at an address."""
    return types.int64(types.int64), lambda c, b, s, v: b.load(b.inttoptr(v[0], I64.as_pointer()))


@intrinsic
def store64(typingctx: Any, address: Any, value: Any) -> Any:
    """Write an int64 to an address."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        b.store(values[1], b.inttoptr(values[0], I64.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def take(typingctx: Any, address: Any) -> Any:
    """The counter at an address, which goes up by one at that moment: no two threads get the same number."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        return b.atomic_rmw("add", b.inttoptr(values[0], I64.as_pointer()), I64(1), "seq_cst")

    return types.int64(types.int64), generate


@intrinsic
def watch(typingctx: Any, address: Any) -> Any:
    """The int64 at an address that another thread may write meanwhile; what it wrote before that is then seen too."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        return b.load_atomic(b.inttoptr(values[0], I64.as_pointer()), "acquire", 8)

    return types.int64(types.int64), generate


@intrinsic
def swap(typingctx: Any, address: Any, before: Any, after: Any) -> Any:
    """Write `after` to the address if `before` is there, at one moment; whether it was."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        pair = b.cmpxchg(b.inttoptr(values[0], I64.as_pointer()), values[1], values[2], "seq_cst", "seq_cst")
        return b.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def pause(typingctx: Any) -> Any:
    """Let the processor's other thread go first for a moment, as is polite in a loop that only looks."""

    def generate(context: Any, b: Any, _: Any, values: Any) -> Any:
        triple = b.module.triple
        name, given = ("llvm.x86.sse2.pause", []) if "86" in triple else ("llvm.aarch64.hint", [I32(1)])
        if "86" in triple or triple.startswith(("aarch64", "arm64")):
            signature = ir.FunctionType(ir.VoidType(), [I32] * len(given))
            b.call(cgutils.get_or_insert_function(b.module, signature, name), given)
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call(typingctx: Any, function: Any, argument: Any) -> Any:
    """Call the kernel at the address `function`."""

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64])
        b.call(b.inttoptr(values[0], kind.as_pointer()), [values[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate
