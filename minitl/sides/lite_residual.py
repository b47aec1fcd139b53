"""The lite residual module of TinyTL (Cai et al. 2020, arXiv:2007.11622), which Rep-Net's modules share.

    y + up(norm(conv1x1(relu(norm(conv_k(pool2(x)))))))

Its final norm's scale begins at 0: attached, it changes nothing. Convolutions are standardised, norms are
group norms. Rep-Net (Yang, Rakin & Fan, CVPR 2022) never strides: where its block halves the map, so does the
pool; its first module reads the image, pooled by 4 before.
"""

from __future__ import annotations

from collections.abc import Iterator

from minitl import ops
from minitl.layers import Activation, Layer
from minitl.records import Var
from minitl.sides.layers import AvgPool, Combine, GroupNorm, IntegerConv, StandardisedConv, UpTo
from minitl.sides.side import Side, SideSpec
from minitl.tape import Tape

IMAGE_POOL = 4


class LiteResidual(Side):
    """The module; `groups` and `stride` are those of its k x k convolution, `middle` its channels between the two.

    With `integers` both convolutions are computed in 8-bit integers, and not standardised.
    """

    def __init__(self, spec: SideSpec, *, middle: int, groups: int, stride: int, integers: bool = False) -> None:
        super().__init__(spec)
        path, dtype = spec.path, spec.dtype
        self.image_pool = AvgPool(f"{path}.image_pool", "side_pool", IMAGE_POOL) if spec.reads_image else None
        self.pool = AvgPool(f"{path}.pool", "side_pool", 2)
        convolution = IntegerConv if integers else StandardisedConv
        self.conv = convolution(
            f"{path}.conv", "side_conv", spec.inputs, middle,
            kernel=spec.kernel, stride=stride, groups=groups, rng=spec.rng, dtype=dtype,
        )  # fmt: skip
        self.norm = GroupNorm(f"{path}.norm", "side_norm", middle, dtype=dtype)
        self.act = Activation(f"{path}.act", "side_act", "relu")
        self.project = convolution(f"{path}.project", "side_project", middle, spec.outputs, rng=spec.rng, dtype=dtype)
        self.project_norm = GroupNorm(f"{path}.project_norm", "side_project_norm", spec.outputs, scale=0, dtype=dtype)
        self.up = UpTo(f"{path}.up", "side_up")
        self.add = Combine(f"{path}.add", "side_add", ops.add)

    def layers(self) -> Iterator[Layer]:
        """Its layers in the order they run."""
        if self.image_pool:
            yield self.image_pool
        yield from (self.pool, self.conv, self.norm, self.act, self.project, self.project_norm, self.up, self.add)

    def __call__(self, tape: Tape, x: Var, y: Var) -> Var:
        """y plus the module's map."""
        if self.image_pool:
            x = self.image_pool(tape, x)
        h = self.act(tape, self.norm(tape, self.conv(tape, self.pool(tape, x))))
        h = self.project_norm(tape, self.project(tape, h))
        return self.add(tape, y, self.up(tape, h, y))
