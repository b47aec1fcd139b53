"""What tutorials 3 to 5 end with: the operations of an inverted residual block and their backwards.

One thing is new against those tutorials: every function takes the `name` of its layer. So all of
them can write into one dictionary `kept`, read their parameters from one dictionary `p` (under
minitl's names: `expand.weight`, `expand_norm.running_mean`, ...), and hand over their gradients in
one dictionary `grads`.
"""

import numpy as np

EPS = 1e-3  # keeps a norm from dividing by zero; MobileNetV3's value


def rows(x):
    """(N, H, W, C) seen as (N H W, C): one row per position."""
    return x.reshape(-1, x.shape[-1])


# Convolutions (tutorial 3)


def pointwise(x, p, name, kept):
    """1x1 convolution: y = x W^T at every position; W is (O, I, 1, 1)."""
    kept[f"{name}.x"] = x
    return x @ p[f"{name}.weight"][:, :, 0, 0].T


def pointwise_backward(kept, gy, p, name, grads):
    w = p[f"{name}.weight"]
    gw = rows(gy).T @ rows(kept[f"{name}.x"])  # kept: x
    grads[f"{name}.weight"] = gw.reshape(w.shape)
    return gy @ w[:, :, 0, 0]  # kept: nothing


def pad(x, k):
    """Zeros around the image, for a k x k filter."""
    return np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))


def seen_by(u, v, shape, stride):
    """Where in the padded input tap (u, v) stands, for all positions of an output of `shape`."""
    _, height, width, _ = shape
    down = slice(u, u + stride * (height - 1) + 1, stride)
    right = slice(v, v + stride * (width - 1) + 1, stride)
    return slice(None), down, right


def depthwise(x, p, name, kept, stride=1):
    """A k x k filter per channel: for each tap, shift x, multiply, add; W is (C, 1, k, k)."""
    kept[f"{name}.x"] = x
    w, (n, height, width, c) = p[f"{name}.weight"], x.shape
    k = w.shape[2]
    y, padded = np.zeros((n, -(-height // stride), -(-width // stride), c), x.dtype), pad(x, k)
    for u in range(k):
        for v in range(k):
            y += w[:, 0, u, v] * padded[seen_by(u, v, y.shape, stride)]
    return y


def depthwise_backward(kept, gy, p, name, grads, stride=1):
    w, x = p[f"{name}.weight"], kept[f"{name}.x"]  # kept: x
    (_, height, width, _), k = x.shape, w.shape[2]
    padded, gw = pad(x, k), np.zeros_like(w)
    gx = np.zeros_like(padded)
    for u in range(k):
        for v in range(k):
            tap = seen_by(u, v, gy.shape, stride)
            gw[:, 0, u, v] = (padded[tap] * gy).sum(axis=(0, 1, 2))  # kept: x
            gx[tap] += w[:, 0, u, v] * gy  # kept: nothing but x's shape
    grads[f"{name}.weight"] = gw
    return gx[:, k // 2 : k // 2 + height, k // 2 : k // 2 + width]  # the padding's gradient: gone


# Norms (tutorial 4)


def batch_norm(x, p, name, kept):
    """Normalise with the batch's own mean and variance (over N, H, W), then scale and shift.

    A training loop would also move the running statistics; no gradient depends on that.
    """
    mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
    inv_std = 1 / np.sqrt(var + EPS)
    x_hat = (x - mean) * inv_std
    kept[f"{name}.x_hat"], kept[f"{name}.inv_std"] = x_hat, inv_std
    return p[f"{name}.weight"] * x_hat + p[f"{name}.bias"]


def batch_norm_backward(kept, gy, p, name, grads):
    m, gamma = len(rows(gy)), p[f"{name}.weight"]
    x_hat, inv_std = kept[f"{name}.x_hat"], kept[f"{name}.inv_std"]
    gbeta = gy.sum(axis=(0, 1, 2))  # kept: nothing
    ggamma = (gy * x_hat).sum(axis=(0, 1, 2))  # kept: x_hat
    grads[f"{name}.weight"], grads[f"{name}.bias"] = ggamma, gbeta
    return gamma * inv_std * (gy - gbeta / m - x_hat * ggamma / m)  # kept: x_hat, inv_std


def frozen_scale(p, name):
    """What a frozen norm multiplies by: (C,)."""
    return p[f"{name}.weight"] / np.sqrt(p[f"{name}.running_var"] + EPS)


def frozen_norm(x, p, name, kept):
    """The same with the running statistics: one multiply and one add per channel. Keeps nothing."""
    return (x - p[f"{name}.running_mean"]) * frozen_scale(p, name) + p[f"{name}.bias"]


def frozen_norm_backward(kept, gy, p, name, grads):
    grads[f"{name}.bias"] = gy.sum(axis=(0, 1, 2))  # kept: nothing
    return gy * frozen_scale(p, name)  # kept: nothing


# Activations (tutorial 5)


def relu6(x):
    return np.clip(x, 0, 6)


def hard_swish(x):
    """h(x) = x relu6(x + 3) / 6."""
    return x * relu6(x + 3) / 6


def hard_swish_slope(x):
    """h'(x): three regions."""
    return np.where(x <= -3, 0, np.where(x >= 3, 1, (2 * x + 3) / 6)).astype(x.dtype)


def pack(codes, bits=1):
    """Codes of 1 or 2 bits (N, H, W, C), packed over the positions of a channel, low bits first."""
    flat = rows(codes).astype(np.uint8)
    planes = np.stack([flat >> bit & 1 for bit in range(bits)], axis=1)  # (M, bits, C)
    return np.packbits(planes.reshape(-1, flat.shape[1]), axis=0, bitorder="little")


def unpack(packed, shape, bits=1):
    """The codes of that shape again."""
    m, c = int(np.prod(shape[:-1])), shape[-1]
    planes = np.unpackbits(packed, axis=0, count=m * bits, bitorder="little").reshape(m, bits, c)
    return sum(planes[:, bit] << bit for bit in range(bits)).reshape(shape)


def activation(x, name, kept, kind, signs):
    """ReLU6 or Hard-Swish. Keeps one bit with `signs`; else 2-bit codes (of the region), or x."""
    if signs:
        kept[f"{name}.mask"] = pack(x >= 0)
    elif kind == "relu6":
        kept[f"{name}.codes"] = pack((x > 0).astype(np.uint8) + (x >= 6), bits=2)
    else:
        kept[f"{name}.x"] = x
    return relu6(x) if kind == "relu6" else hard_swish(x)


def activation_backward(kept, gy, name):
    if f"{name}.mask" in kept:
        return gy * unpack(kept[f"{name}.mask"], gy.shape)  # kept: mask
    if f"{name}.codes" in kept:
        return gy * (unpack(kept[f"{name}.codes"], gy.shape, bits=2) == 1)  # kept: codes
    return gy * hard_swish_slope(kept[f"{name}.x"])  # kept: x


# A block to try them on


def random_block(rng, channels, expanded, outputs, kernel):
    """Parameters of a block, by name, with norms that look as if they had been trained."""
    sizes = {"expand_norm": expanded, "depthwise_norm": expanded, "project_norm": outputs}
    p = {
        "expand.weight": rng.standard_normal((expanded, channels, 1, 1)) / np.sqrt(channels),
        "depthwise.weight": rng.standard_normal((expanded, 1, kernel, kernel)) / kernel,
        "project.weight": rng.standard_normal((outputs, expanded, 1, 1)) / np.sqrt(expanded),
    }
    for name, size in sizes.items():
        p[f"{name}.weight"] = rng.uniform(0.5, 1.5, size)
        p[f"{name}.bias"] = rng.standard_normal(size) / 2
        p[f"{name}.running_mean"] = rng.standard_normal(size) / 4
        p[f"{name}.running_var"] = rng.uniform(0.5, 1.5, size)
    return p
