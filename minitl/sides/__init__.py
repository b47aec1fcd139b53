"""Side modules: what runs beside a block, or a layer, and joins its output."""

from minitl.sides.attention import Attention
from minitl.sides.lite_residual import LiteResidual
from minitl.sides.low_rank import LowRank
from minitl.sides.side import Side, SideSpec

__all__ = ["Attention", "LiteResidual", "LowRank", "Side", "SideSpec"]
