"""The methods, each a policy in a file of its own."""

from dataclasses import replace

from minitl.errors import unknown
from minitl.methods.ft_all import ft_all
from minitl.methods.ft_bias import ft_bias
from minitl.methods.ft_blocks import ft_blocks
from minitl.methods.ft_last import ft_last
from minitl.methods.ft_norm import ft_norm
from minitl.methods.method import Method
from minitl.methods.mobiletl import mobiletl

METHODS = {method.name: method for method in (ft_all, ft_last, ft_bias, ft_norm, ft_blocks, mobiletl)}


def get(name: str, blocks: int | None = None, quantised: bool = False) -> Method:
    """The method of that name.

    `blocks` is how many blocks from the top it tunes, where that is a choice; `quantised` holds
    its frozen weights in 8 bits.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    return replace(METHODS[name].with_blocks(blocks), quantised=quantised)


__all__ = ["METHODS", "Method", "get"]
