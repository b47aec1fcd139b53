"""The methods, each a policy in a file of its own."""

from collections.abc import Mapping
from dataclasses import replace

from minitl.checks import expect_flag
from minitl.errors import UsageError, brief, lookup
from minitl.methods.attention import additive_attention, multiplicative_attention
from minitl.methods.back_razor import back_razor
from minitl.methods.calibration import calibrate
from minitl.methods.encoded import gradient_filter, quantised, subspace, subspace_fixed
from minitl.methods.ft_all import ft_all
from minitl.methods.ft_bias import ft_bias
from minitl.methods.ft_blocks import ft_blocks
from minitl.methods.ft_last import ft_last
from minitl.methods.ft_norm import ft_norm
from minitl.methods.lora import lora, lora_fa
from minitl.methods.method import Method
from minitl.methods.mobiletl import mobiletl
from minitl.methods.mobiletl_exact import mobiletl_exact
from minitl.methods.mobiletl_recompute import mobiletl_recompute
from minitl.methods.rep_net import rep_net
from minitl.methods.repnet_int8 import repnet_int8
from minitl.methods.slope import slope
from minitl.methods.sparse_update import sparse_update
from minitl.methods.tinytl import tinytl_b, tinytl_l, tinytl_lb

METHODS = {
    method.name: method
    for method in [
        *(ft_all, ft_last, ft_bias, ft_norm, ft_blocks),
        *(mobiletl, mobiletl_exact, mobiletl_recompute),
        *(tinytl_b, tinytl_l, tinytl_lb, rep_net, additive_attention, multiplicative_attention),
        *(repnet_int8, back_razor, sparse_update),
        *(quantised, gradient_filter, subspace, subspace_fixed, slope, lora, lora_fa),
    ]
}


def get(
    name: str,
    blocks: int | None = None,
    *,
    quantised: bool = False,
    checkpoint: bool = False,
    rules: Mapping[str, str] | None = None,
) -> Method:
    """The method of that name.

    `blocks` is how many blocks from the top it tunes, where that is a choice; the other options
    are those of every method (see `Method`). `rules` maps roles or activations to backward rules.
    """
    method = lookup("method", name, METHODS).with_blocks(blocks)
    if not isinstance(rules, Mapping | None) or not all(
        isinstance(w, str) for pair in (rules or {}).items() for w in pair
    ):
        raise UsageError(op=method.name, expected="rules as a mapping from names to names", got=brief(repr(rules)))
    return replace(
        method,
        quantised=expect_flag("quantised", quantised, op=method.name),
        checkpoint=expect_flag("checkpoint", checkpoint, op=method.name),
        rules=tuple((rules or {}).items()),
    )


__all__ = ["METHODS", "Method", "calibrate", "get"]
