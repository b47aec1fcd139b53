"""A checkpoint's work: that of its block, and the block's forward once more; counted in MACs and in FLOPs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from models import trained

import minitl
from minitl.accounting import predict
from minitl.shadow import ShadowTape


@pytest.mark.parametrize("work", ["macs", "flops"])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_forward_work_of_the_tuned_blocks_is_done_once_more(work: str, blocks: int) -> None:
    net = trained(minitl.networks.digits_irb(num_classes=3), "ft-blocks", blocks)
    tape = ShadowTape(fused=False)
    net(tape, tape.phantom((2, 16, 16, 3), "float32"))
    tuned = {layer.path for layer in net.layers() if 1 <= layer.height <= blocks}
    forward = sum(getattr(r.cost, work).forward for r in tape.records if r.layer in tuned)
    plain = getattr(predict(net, batch=2, resolution=16).totals, work)
    trained(net, "ft-blocks", blocks, checkpoint=True)
    again = getattr(predict(net, batch=2, resolution=16).totals, work)
    assert again.recompute == forward > 0
    assert replace(again, recompute=0) == plain
