"""The block of tutorial 6, forward and backward, with a stride: a list of calls, and the list from its end."""

from course import pieces


def forward(x, p, *, kind, shift_only, signs, stride=1):
    """y of the block, and `kept`: all that `backward` will use of this pass."""
    inner_norm = pieces.frozen_norm if shift_only else pieces.batch_norm
    kept = {}
    h = pieces.pointwise(x, p, "expand", kept)
    h = inner_norm(h, p, "expand_norm", kept)
    h = pieces.activation(h, "expand_act", kept, kind, signs)
    h = pieces.depthwise(h, p, "depthwise", kept, stride)
    h = inner_norm(h, p, "depthwise_norm", kept)
    h = pieces.activation(h, "depthwise_act", kept, kind, signs)
    h = pieces.pointwise(h, p, "project", kept)
    h = pieces.batch_norm(h, p, "project_norm", kept)
    return (h + x if stride == 1 and h.shape == x.shape else h), kept


def backward(kept, gy, p, stride=1):
    """Gradients of all that is trained, by name, and of the block's input, as "x"."""
    frozen = "expand_norm.x_hat" not in kept
    inner_norm_backward = pieces.frozen_norm_backward if frozen else pieces.batch_norm_backward
    grads = {}
    g = pieces.batch_norm_backward(kept, gy, p, "project_norm", grads)
    g = pieces.pointwise_backward(kept, g, p, "project", grads)
    g = pieces.activation_backward(kept, g, "depthwise_act")
    g = inner_norm_backward(kept, g, p, "depthwise_norm", grads)
    g = pieces.depthwise_backward(kept, g, p, "depthwise", grads, stride)
    g = pieces.activation_backward(kept, g, "expand_act")
    g = inner_norm_backward(kept, g, p, "expand_norm", grads)
    g = pieces.pointwise_backward(kept, g, p, "expand", grads)
    grads["x"] = g + gy if stride == 1 and g.shape == gy.shape else g
    return grads
