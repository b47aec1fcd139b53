"""The built-in cases: small, named by what they are, generated when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

from minitl.oracle import mechanisms
from minitl.oracle.case import Case
from minitl.oracle.make import make
from minitl.oracle.store import CaseError


@dataclass(frozen=True)
class Entry:
    """One built-in case: its name, and what `make` needs for it."""

    name: str
    op: str
    method: str = "ft"
    attrs: dict[str, Any] = field(default_factory=dict)
    size: tuple[int, int, int] = (2, 5, 4)

    def case(self, layout: str = "nhwc", dtype: str = "float32", **other: Any) -> Case:
        """Generate it; `batch`, `height`, `width` and `weights` may be others than the built-in ones.

        A case of another size has it in its name.
        """
        built_in = dict(zip(("batch", "height", "width"), self.size, strict=True))
        size = {extent: n if (n := other.pop(extent, None)) is not None else built_in[extent] for extent in built_in}
        name = self.name if size == built_in else f"{self.name}-{'x'.join(map(str, size.values()))}"
        given = {"layout": layout, "dtype": dtype, "name": name, "seed": crc32(self.name.encode()), **size, **other}
        return make(self.op, method=self.method, attrs=self.attrs, **given)


def cases(pattern: str = "*", *, layout: str = "nhwc", dtype: str = "float32", **other: Any) -> Iterator[Case]:
    """The built-in cases whose name matches the shell pattern, one by one, the same each time.

    `batch=`, `height=`, `width=` make them in another size (libraries for a single sample want
    `batch=1`), `weights="ohwi"` or `"hwio"` with weights in another order. Raises CaseError where
    no name matches.
    """
    return (entry.case(layout, dtype, **other) for entry in entries(pattern))


def entries(pattern: str = "*") -> list[Entry]:
    """The list of built-in cases, without their data; raises CaseError where none matches."""
    every = [*_convolutions(), *_norms(), *_activations(), *_others(), *_updates(), *_blocks(), *_networks()]
    every += [Entry(name, op, attrs=attrs, size=size) for name, op, attrs, size in mechanisms.entries()]
    found = [entry for entry in every if fnmatchcase(entry.name, pattern)]
    if not found:
        raise CaseError(f"no built-in case matches {pattern!r}", remedy="see minitl oracle list")
    return found


def _convolutions() -> Iterator[Entry]:
    for kernel, stride, size in ((3, 2, (2, 5, 4)), (3, 1, (1, 3, 5)), (5, 2, (2, 6, 5)), (7, 1, (1, 5, 6))):
        attrs = {"channels": 3, "out_channels": 4, "kernel": kernel, "stride": stride}
        yield Entry(f"conv-k{kernel}-s{stride}", "conv", attrs=attrs, size=size)
    stem = {"channels": 3, "out_channels": 5, "stride": 2, "bias": True}
    yield Entry("conv-bias", "conv", attrs=stem, size=(2, 7, 5))
    yield Entry("conv-frozen", "conv", attrs={**stem, "train": "none"}, size=(2, 4, 5))
    for kernel in (3, 5, 7):
        for stride in (1, 2):
            attrs = {"channels": 9 - kernel, "kernel": kernel, "stride": stride}
            yield Entry(
                f"depthwise_conv-k{kernel}-s{stride}", "depthwise_conv", attrs=attrs, size=(2, 7 - kernel // 3, 5)
            )
    yield Entry("depthwise_conv-even-s2", "depthwise_conv", attrs={"stride": 2, "channels": 3}, size=(1, 8, 6))
    yield Entry("depthwise_conv-small-map", "depthwise_conv", attrs={"kernel": 5, "channels": 6}, size=(3, 2, 1))
    yield Entry("depthwise_conv-frozen", "depthwise_conv", attrs={"train": "none"})
    with_bias = {"channels": 4, "stride": 2, "bias": True}
    yield Entry("depthwise_conv-bias", "depthwise_conv", attrs=with_bias, size=(2, 4, 5))
    yield Entry("depthwise_conv-bias-only", "depthwise_conv", attrs={**with_bias, "train": "bias"}, size=(2, 4, 5))
    yield Entry("pointwise_conv-expand", "pointwise_conv", attrs={"channels": 3, "out_channels": 11}, size=(2, 3, 5))
    yield Entry("pointwise_conv-project", "pointwise_conv", attrs={"channels": 13, "out_channels": 3}, size=(1, 5, 3))
    yield Entry("pointwise_conv-bias", "pointwise_conv", attrs={"bias": True}, size=(3, 3, 3))
    yield Entry("pointwise_conv-bias-only", "pointwise_conv", attrs={"bias": True, "train": "bias"}, size=(2, 3, 4))
    yield Entry("pointwise_conv-frozen", "pointwise_conv", attrs={"train": "none"}, size=(2, 3, 4))
    yield Entry("grouped_conv-k3-s1", "grouped_conv", size=(2, 4, 3))
    three = {"channels": 6, "out_channels": 9, "groups": 3}
    yield Entry("grouped_conv-k3-s2", "grouped_conv", attrs={**three, "stride": 2}, size=(1, 5, 6))
    yield Entry("standardised_conv-k3-s1", "standardised_conv", attrs={**three, "groups": 1}, size=(2, 3, 4))
    yield Entry("standardised_conv-k3-s2", "standardised_conv", attrs={"stride": 2}, size=(2, 5, 4))
    for patch, size in ((2, (2, 4, 6)), (4, (1, 6, 5))):
        yield Entry(f"filtered_conv-patch{patch}", "filtered_conv", attrs={"patch": patch}, size=size)
    yield Entry("filtered_conv-patch2-s2", "filtered_conv", attrs={"stride": 2}, size=(2, 6, 5))
    yield Entry("filtered_conv-patch2-k1", "filtered_conv", attrs={"kernel": 1, "channels": 7}, size=(2, 3, 5))


def _norms() -> Iterator[Entry]:
    v3 = {"eps": 1e-3, "momentum": 0.01}
    yield Entry("batch_norm-v2", "batch_norm", attrs={"channels": 5})
    yield Entry("batch_norm-v3", "batch_norm", attrs={"channels": 7, **v3}, size=(3, 3, 5))
    yield Entry("batch_norm-one-image", "batch_norm", attrs={"channels": 3}, size=(1, 3, 3))
    yield Entry("batch_norm-few-values", "batch_norm", attrs={"channels": 9}, size=(3, 1, 1))
    yield Entry("batch_norm-shift-only", "batch_norm", attrs={"train": "bias"})
    yield Entry("batch_norm-scale-only", "batch_norm", attrs={"train": "weight", **v3})
    yield Entry("batch_norm-frozen-parameters", "batch_norm", attrs={"train": "none"})
    yield Entry("frozen_norm-shift", "frozen_norm", attrs={"channels": 7})
    yield Entry("frozen_norm-v3", "frozen_norm", attrs={"channels": 3, "eps": 1e-3}, size=(1, 3, 5))
    yield Entry("frozen_norm-frozen", "frozen_norm", attrs={"train": "none"})
    yield Entry("group_norm", "group_norm", size=(2, 3, 4))
    yield Entry("group_norm-one-group", "group_norm", attrs={"channels": 5, "groups": 1, "eps": 1e-3}, size=(3, 3, 2))
    yield Entry("group_norm-shift-only", "group_norm", attrs={"groups": 3, "train": "bias"}, size=(2, 2, 3))


def _activations() -> Iterator[Entry]:
    rules = {
        "relu": ("exact", "output"),
        "relu6": ("codes", "band", "output", "sign"),
        "hard_swish": ("exact", "output", "sign", "output-sign", "few1", "few2", "few4"),
    }
    for name, of_op in rules.items():
        for rule in of_op:
            yield Entry(f"{name}-{rule}", name, attrs={"rule": rule}, size=(2, 5, 3))
    yield Entry("hard_sigmoid-exact", "hard_sigmoid", size=(2, 5, 3))
    yield Entry("sigmoid-exact", "sigmoid", size=(2, 3, 5))
    for rule in ("exact", "sign"):
        yield Entry(f"silu-{rule}", "silu", attrs={"rule": rule}, size=(2, 5, 3))
    yield Entry("hard_swish-one-image", "hard_swish", attrs={"channels": 11}, size=(1, 3, 3))
    yield Entry("relu6-many-channels", "relu6", attrs={"channels": 17}, size=(1, 3, 3))


def _others() -> Iterator[Entry]:
    yield Entry("squeeze_excite", "squeeze_excite", size=(3, 3, 5))
    yield Entry("squeeze_excite-one-image", "squeeze_excite", attrs={"channels": 9, "se_channels": 4}, size=(1, 5, 3))
    yield Entry("squeeze_excite-bias-only", "squeeze_excite", attrs={"train": "fc1.bias,fc2.bias"}, size=(3, 4, 3))
    yield Entry("squeeze_excite-frozen", "squeeze_excite", attrs={"train": "none"}, size=(3, 4, 3))
    yield Entry("scale", "scale", size=(2, 3, 5))
    yield Entry("scale-one-image", "scale", attrs={"channels": 9}, size=(1, 5, 3))
    yield Entry("add", "add", size=(2, 3, 5))
    yield Entry("global_avg_pool", "global_avg_pool", size=(3, 5, 3))
    yield Entry("global_avg_pool-one-image", "global_avg_pool", attrs={"channels": 7}, size=(1, 3, 2))
    yield Entry("avg_pool-even", "avg_pool", size=(2, 4, 6))
    yield Entry("avg_pool-odd", "avg_pool", attrs={"channels": 3}, size=(2, 5, 7))
    yield Entry("bilinear_up-double", "bilinear_up", attrs={"out_height": 6, "out_width": 8}, size=(2, 3, 4))
    uneven = {"channels": 3, "out_height": 7, "out_width": 5}
    yield Entry("bilinear_up-uneven", "bilinear_up", attrs=uneven, size=(1, 3, 4))
    yield Entry("linear", "linear", size=(3, 1, 1))
    yield Entry("linear-one-sample", "linear", attrs={"channels": 11, "out_channels": 7}, size=(1, 1, 1))
    yield Entry("linear-no-bias", "linear", attrs={"bias": False}, size=(4, 1, 1))
    yield Entry("linear-bias-only", "linear", attrs={"train": "bias"}, size=(3, 1, 1))
    yield Entry("linear-frozen", "linear", attrs={"train": "none"}, size=(3, 1, 1))
    yield Entry("pooled_head", "pooled_head", size=(3, 3, 5))
    yield Entry("pooled_head-bias-only", "pooled_head", attrs={"train": "bias"}, size=(2, 3, 2))
    yield Entry("cross_entropy", "cross_entropy", size=(5, 1, 1))
    yield Entry("cross_entropy-one-sample", "cross_entropy", attrs={"channels": 3}, size=(1, 1, 1))


def _updates() -> Iterator[Entry]:
    for op in ("sgd", "adam"):
        for steps, name in ((1, op), (3, f"{op}-three-steps")):
            yield Entry(name, op, attrs={"steps": steps, "size": 7 + steps})
    yield Entry("sgd-plain", "sgd", attrs={"momentum": 0.0, "weight_decay": 0.0})
    yield Entry("sgd-nesterov", "sgd", attrs={"nesterov": True, "steps": 2})


# What a block is, beside its activation; each is crossed with the methods below.
SHAPES: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "k3-s1": ({"kernel": 3}, (2, 5, 3)),
    "k5-s2-se": ({"kernel": 5, "stride": 2, "out_channels": 3, "se_channels": 3}, (2, 5, 4)),
    "k3-s1-se": ({"kernel": 3, "se_channels": 4}, (2, 3, 5)),
    "k7-s2": ({"kernel": 7, "stride": 2, "in_channels": 3, "out_channels": 4}, (2, 5, 4)),
    "k3-s1-no_expand": ({"in_channels": 7, "out_channels": 3, "expand": False}, (2, 4, 3)),
    "k3-s1-same_width": ({"in_channels": 7, "out_channels": 7}, (2, 4, 3)),
    "k5-s1-one_image": ({"kernel": 5, "expanded_channels": 11}, (1, 5, 4)),
}
CHOSEN = {
    "hard_swish": ("k3-s1", "k5-s2-se", "k3-s1-se", "k5-s1-one_image"),
    "relu6": ("k3-s1-same_width", "k7-s2", "k3-s1-no_expand"),
    "relu": ("k5-s2-se", "k3-s1-no_expand"),
}


def _blocks() -> Iterator[Entry]:
    yield Entry("residual-relu", "residual", size=(2, 4, 3))
    yield Entry("residual-hard_swish", "residual", attrs={"activation": "hard_swish", "channels": 4}, size=(2, 3, 5))
    for method in ("ft", "mobiletl", "mobiletl-exact", "mobiletl-recompute"):
        for activation, shapes in CHOSEN.items():
            for shape in shapes:
                if method == "mobiletl-recompute" and shape.endswith("no_expand"):
                    continue  # there is nothing to recompute
                attrs, size = SHAPES[shape]
                v2 = {} if activation == "hard_swish" else {"eps": 1e-5, "momentum": 0.1}
                name = f"irb-{method}-{activation}-{shape}"
                yield Entry(name, "irb", method, {"activation": activation, **attrs, **v2}, size)


# One training step, end to end; what a network is beside its activation, crossed with methods below.
NETWORKS: dict[str, tuple[dict[str, Any], tuple[int, int, int]]] = {
    "two": ({}, (3, 9, 8)),
    "three": (
        {"kernels": "3,5,3", "strides": "1,2,1", "expanded": "9,10,11", "channels": "6,7,7", "se": "0,4,0"},
        (4, 9, 8),
    ),
}
TRAINED = (
    ("ft-all", "relu6", "two", 2),
    ("ft", "hard_swish", "three", 2),
    ("mobiletl", "hard_swish", "three", 2),
    ("mobiletl-exact", "hard_swish", "three", 3),
    ("mobiletl-recompute", "relu6", "three", 1),
)


def _networks() -> Iterator[Entry]:
    for method, activation, shape, tuned in TRAINED:
        attrs, size = NETWORKS[shape]
        name = f"network-{method}-{activation}-{tuned}_of_{shape}"
        yield Entry(name, "network", method, {"activation": activation, **attrs, "tuned": tuned}, size)
