"""Memory by its address, for kernels: their arguments, views of maps, single numbers, a counter, a call.

Every kernel begins with `a, b, ... = arguments(p, count, version)`. `version` is `compile.sources()`,
closed over: what a function closes over is part of the name under which Numba keeps it on disk.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

I64, I32, I8 = (ir.IntType(bits) for bits in (64, 32, 8))


def written(names: list[str], result: Callable[..., Any], write: Callable[..., Any], **options: bool) -> Any:
    """An intrinsic of arguments of these names: `write(builder, types, values)` writes its instructions.

    `result(*types)` is the type of what it gives.
    """

    def typed(typingctx: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return write(builder, kinds, values) or context.get_dummy_value()

        return result(*kinds)(*kinds), generate

    source = f"def typed_(typingctx, {', '.join(names)}):\n    return typed(typingctx, {', '.join(names)})\n"
    space: dict[str, Any] = {"typed": typed}
    exec(source, space)  # an intrinsic wants its arguments by name
    return (intrinsic(**options) if options else intrinsic)(space["typed_"])


def raw_op(result: Any) -> Callable[[Callable[..., Any]], Any]:
    """An intrinsic of numbers from `f(builder, *values)`."""

    def wrap(f: Callable[..., Any]) -> Any:
        names = list(inspect.signature(f).parameters)[1:]
        return written(names, lambda *_: result, lambda builder, _, values: f(builder, *values))

    return wrap


def _at(b: Any, address: Any, kind: Any = I64) -> Any:
    return b.inttoptr(address, kind.as_pointer())


@intrinsic(prefer_literal=True)
def arguments(typingctx: Any, address: Any, count: Any, version: Any) -> Any:
    """The `count` int64 numbers at an address."""
    many = count.literal_value

    def generate(context: Any, b: Any, signature: Any, values: Any) -> Any:
        place = _at(b, values[0])
        return context.make_tuple(b, signature.return_type, [b.load(b.gep(place, [I64(i)])) for i in range(many)])

    return types.UniTuple(types.int64, many)(address, count, version), generate


@raw_op(types.voidptr)
def pointer(b: Any, address: Any) -> Any:
    """The address as a pointer: `numba.carray(pointer(address), shape, dtype)` is a view of an array there."""
    return _at(b, address, I8)


@raw_op(types.int64)
def load64(b: Any, address: Any) -> Any:
    """The int64 at an address."""
    return b.load(_at(b, address))


@raw_op(types.void)
def store64(b: Any, address: Any, value: Any) -> None:
    """Write an int64 to an address."""
    b.store(value, _at(b, address))


@raw_op(types.int64)
def count_up(b: Any, address: Any) -> Any:
    """The counter at an address, before it goes up by one: at one moment, so that none of several threads is missed."""
    return b.atomic_rmw("add", _at(b, address), I64(1), "seq_cst")


@raw_op(types.int64)
def watch(b: Any, address: Any) -> Any:
    """The int64 at an address that another thread may write meanwhile; what it wrote before that is then seen too."""
    return b.load_atomic(_at(b, address), "acquire", 8)


@raw_op(types.boolean)
def swap(b: Any, address: Any, before: Any, after: Any) -> Any:
    """Write `after` to the address if `before` is there, at one moment; whether it was."""
    return b.extract_value(b.cmpxchg(_at(b, address), before, after, "seq_cst", "seq_cst"), 1)


@raw_op(types.void)
def pause(b: Any) -> None:
    """Let the processor's other thread go first for a moment, as is polite in a loop that only looks."""
    triple = b.module.triple
    name, given = ("llvm.x86.sse2.pause", []) if "86" in triple else ("llvm.aarch64.hint", [I32(1)])
    if "86" in triple or triple.startswith(("aarch64", "arm64")):
        signature = ir.FunctionType(ir.VoidType(), [I32] * len(given))
        b.call(cgutils.get_or_insert_function(b.module, signature, name), given)


@raw_op(types.void)
def call(b: Any, function: Any, argument: Any) -> None:
    """Call the kernel at the address `function`."""
    b.call(_at(b, function, ir.FunctionType(ir.VoidType(), [I64])), [argument])
