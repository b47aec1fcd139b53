"""The built-in cases: small, named by what they are, generated when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any
from zlib import crc32

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
    every = (*SINGLE, *_blocks(), *_networks(), *MECHANISMS)
    found = [entry for entry in every if fnmatchcase(entry.name, pattern)]
    if not found:
        raise CaseError(f"no built-in case matches {pattern!r}", remedy="see minitl oracle list")
    return found


def _single(name: str, size: tuple[int, int, int], /, **attrs: Any) -> Entry:
    """A case of an op of its own, whose name is the beginning of the case's."""
    return Entry(name, name.partition("-")[0], attrs=attrs, size=size)


RULES = {
    "relu": ("exact", "output"),
    "relu6": ("codes", "band", "output", "sign"),
    "hard_swish": ("exact", "output", "sign", "output-sign", "few1", "few2", "few4"),
}
SINGLE = (
    _single("conv-k3-s2", (2, 5, 4), channels=3, out_channels=4, kernel=3, stride=2),
    _single("conv-k3-s1", (1, 3, 5), channels=3, out_channels=4, kernel=3, stride=1),
    _single("conv-k5-s2", (2, 6, 5), channels=3, out_channels=4, kernel=5, stride=2),
    _single("conv-k7-s1", (1, 5, 6), channels=3, out_channels=4, kernel=7, stride=1),
    _single("conv-bias", (2, 7, 5), channels=3, out_channels=5, stride=2, bias=True),
    _single("conv-frozen", (2, 4, 5), channels=3, out_channels=5, stride=2, bias=True, train="none"),
    _single("depthwise_conv-k3-s1", (2, 6, 5), channels=6, kernel=3, stride=1),
    _single("depthwise_conv-k3-s2", (2, 6, 5), channels=6, kernel=3, stride=2),
    _single("depthwise_conv-k5-s1", (2, 6, 5), channels=4, kernel=5, stride=1),
    _single("depthwise_conv-k5-s2", (2, 6, 5), channels=4, kernel=5, stride=2),
    _single("depthwise_conv-k7-s1", (2, 5, 5), channels=2, kernel=7, stride=1),
    _single("depthwise_conv-k7-s2", (2, 5, 5), channels=2, kernel=7, stride=2),
    _single("depthwise_conv-even-s2", (1, 8, 6), stride=2, channels=3),
    _single("depthwise_conv-small-map", (3, 2, 1), kernel=5, channels=6),
    _single("depthwise_conv-frozen", (2, 5, 4), train="none"),
    _single("depthwise_conv-bias", (2, 4, 5), channels=4, stride=2, bias=True),
    _single("depthwise_conv-bias-only", (2, 4, 5), channels=4, stride=2, bias=True, train="bias"),
    _single("pointwise_conv-expand", (2, 3, 5), channels=3, out_channels=11),
    _single("pointwise_conv-project", (1, 5, 3), channels=13, out_channels=3),
    _single("pointwise_conv-bias", (3, 3, 3), bias=True),
    _single("pointwise_conv-bias-only", (2, 3, 4), bias=True, train="bias"),
    _single("pointwise_conv-frozen", (2, 3, 4), train="none"),
    _single("grouped_conv-k3-s1", (2, 4, 3)),
    _single("grouped_conv-k3-s2", (1, 5, 6), channels=6, out_channels=9, groups=3, stride=2),
    _single("standardised_conv-k3-s1", (2, 3, 4), channels=6, out_channels=9, groups=1),
    _single("standardised_conv-k3-s2", (2, 5, 4), stride=2),
    _single("filtered_conv-patch2", (2, 4, 6), patch=2),
    _single("filtered_conv-patch4", (1, 6, 5), patch=4),
    _single("filtered_conv-patch2-s2", (2, 6, 5), stride=2),
    _single("filtered_conv-patch2-k1", (2, 3, 5), kernel=1, channels=7),
    _single("batch_norm-v2", (2, 5, 4), channels=5),
    _single("batch_norm-v3", (3, 3, 5), channels=7, eps=0.001, momentum=0.01),
    _single("batch_norm-one-image", (1, 3, 3), channels=3),
    _single("batch_norm-few-values", (3, 1, 1), channels=9),
    _single("batch_norm-shift-only", (2, 5, 4), train="bias"),
    _single("batch_norm-scale-only", (2, 5, 4), train="weight", eps=0.001, momentum=0.01),
    _single("batch_norm-frozen-parameters", (2, 5, 4), train="none"),
    _single("frozen_norm-shift", (2, 5, 4), channels=7),
    _single("frozen_norm-v3", (1, 3, 5), channels=3, eps=0.001),
    _single("frozen_norm-frozen", (2, 5, 4), train="none"),
    _single("group_norm", (2, 3, 4)),
    _single("group_norm-one-group", (3, 3, 2), channels=5, groups=1, eps=0.001),
    _single("group_norm-shift-only", (2, 2, 3), groups=3, train="bias"),
    *(_single(f"{op}-{rule}", (2, 5, 3), rule=rule) for op, rules in RULES.items() for rule in rules),
    _single("hard_sigmoid-exact", (2, 5, 3)),
    _single("sigmoid-exact", (2, 3, 5)),
    _single("silu-exact", (2, 5, 3), rule="exact"),
    _single("silu-sign", (2, 5, 3), rule="sign"),
    _single("hard_swish-one-image", (1, 3, 3), channels=11),
    _single("relu6-many-channels", (1, 3, 3), channels=17),
    _single("squeeze_excite", (3, 3, 5)),
    _single("squeeze_excite-one-image", (1, 5, 3), channels=9, se_channels=4),
    _single("squeeze_excite-bias-only", (3, 4, 3), train="fc1.bias,fc2.bias"),
    _single("squeeze_excite-frozen", (3, 4, 3), train="none"),
    _single("scale", (2, 3, 5)),
    _single("scale-one-image", (1, 5, 3), channels=9),
    _single("add", (2, 3, 5)),
    _single("global_avg_pool", (3, 5, 3)),
    _single("global_avg_pool-one-image", (1, 3, 2), channels=7),
    _single("avg_pool-even", (2, 4, 6)),
    _single("avg_pool-odd", (2, 5, 7), channels=3),
    _single("bilinear_up-double", (2, 3, 4), out_height=6, out_width=8),
    _single("bilinear_up-uneven", (1, 3, 4), channels=3, out_height=7, out_width=5),
    _single("linear", (3, 1, 1)),
    _single("linear-one-sample", (1, 1, 1), channels=11, out_channels=7),
    _single("linear-no-bias", (4, 1, 1), bias=False),
    _single("linear-bias-only", (3, 1, 1), train="bias"),
    _single("linear-frozen", (3, 1, 1), train="none"),
    _single("pooled_head", (3, 3, 5)),
    _single("pooled_head-bias-only", (2, 3, 2), train="bias"),
    _single("cross_entropy", (5, 1, 1)),
    _single("cross_entropy-one-sample", (1, 1, 1), channels=3),
    _single("sgd", (2, 5, 4), steps=1, size=8),
    _single("sgd-three-steps", (2, 5, 4), steps=3, size=10),
    _single("adam", (2, 5, 4), steps=1, size=8),
    _single("adam-three-steps", (2, 5, 4), steps=3, size=10),
    _single("sgd-plain", (2, 5, 4), momentum=0.0, weight_decay=0.0),
    _single("sgd-nesterov", (2, 5, 4), nesterov=True, steps=2),
    _single("residual-relu", (2, 4, 3)),
    _single("residual-hard_swish", (2, 3, 5), activation="hard_swish", channels=4),
)
MECHANISMS = (  # of the systems around MobileTL
    _single("coded_conv-quantised8", (2, 5, 4), rule="quantised8", stride=2),
    _single("coded_conv-quantised4-k1", (2, 3, 4), rule="quantised4", kernel=1, channels=6),
    _single("coded_conv-quantised2", (2, 4, 3), rule="quantised2"),
    _single("coded_conv-quantised2-two-groups", (1, 5, 4), rule="quantised2", kernel=1, channels=14),
    _single("coded_conv-razor", (2, 3, 5), rule="razor"),
    _single("coded_conv-channels", (2, 4, 3), rule="channels", channels=4, kept_channels="1,3"),
    _single("subspace_conv-fixed-k3-s1", (2, 4, 3), rule="subspace_fixed"),
    _single("subspace_conv-fixed-k1", (1, 4, 5), rule="subspace_fixed", kernel=1, ranks="2,3,2"),
    _single("subspace_conv-follows-k1", (2, 3, 4), kernel=1),
    _single("subspace_conv-follows-k3-s2", (1, 5, 4), stride=2, ranks="1,2,2"),
    _single("integer_conv-k3-s1", (2, 4, 3)),
    _single("integer_conv-bit-serial-k3-s2", (1, 5, 4), rule="bit-serial", stride=2, groups=1),
    _single("pruned_conv-2-of-4", (2, 3, 2), channels=12),
    _single("pruned_conv-1-of-2-bias", (1, 4, 3), keep=1, of=2, bias=True, channels=6),
    _single("pruned_linear-2-of-4", (5, 1, 1)),
    _single("multiply", (2, 3, 4)),
    _single("add_channels", (2, 3, 4)),
)

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
