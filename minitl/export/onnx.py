"""A network in evaluation mode as ONNX: what its tape records, op by op, as nodes of a graph.

The input is `images` (N, 3, R, R), normalised as the model's preprocessing says; the output is
`logits` (N, K). Running statistics are weights of the graph's norms. minitl's maps are (N, H, W, C)
and ONNX's (N, C, H, W): no node depends on the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minitl.arrays import Array
from minitl.errors import UsageError
from minitl.networks.network import Network
from minitl.ops.convolutions.standardised_conv import standardise
from minitl.ops.convolutions.window import padding_of
from minitl.ops.rules.sparse import largest
from minitl.records import OpRecord, Var
from minitl.tape import Tape

OPSET, IR_VERSION = 18, 8  # of 2022: ONNX Runtime 1.14 and newer
INPUT, OUTPUT = "images", "logits"


class Graph:
    """Nodes and weights so far. The value of record i is named after its layer, and its number where that is needed."""

    def __init__(self, helper: Any, numpy_helper: Any) -> None:
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: dict[str, Any] = {}

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, and return its output."""
        self.nodes.append(self.helper.make_node(kind, inputs, [output], name=f"{output}.{kind}", **attributes))
        return output

    def weight(self, name: str, array: Array, dtype: str) -> str:
        """Add a constant, and return its name."""
        self.weights[name] = self.numpy_helper.from_array(np.ascontiguousarray(array, dtype), name)
        return name


Emit = Callable[[Graph, OpRecord, list[str], str], str]


def _conv(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    weight, *bias = _arrays(record)
    return _convolve(graph, record, inputs[0], output, weight, bias[0] if bias else None)


def _arrays(record: OpRecord) -> list[Array]:
    """Weight and bias as they are multiplied: pruned, where they have a pattern."""
    weight, *bias = (p.array() for p in record.parameters)
    pattern = record.attrs.get("pattern")
    return [weight * largest(weight, pattern, 1) if pattern else weight, *bias]


def _convolve(graph: Graph, record: OpRecord, x: str, output: str, weight: Array, bias: Array | None) -> str:
    kernel, stride = weight.shape[2], record.attrs.get("stride", 1)
    names = [x, graph.weight(f"{record.layer}.weight", weight, record.dtype)]
    if bias is not None:
        names.append(graph.weight(f"{record.layer}.bias", bias, record.dtype))
    groups = record.shapes[0][3] // weight.shape[1]
    above, below, left, right = padding_of(record.name, kernel, record.attrs)
    window = {"kernel_shape": [kernel] * 2, "pads": [above, left, below, right], "strides": [stride] * 2}
    return graph.node("Conv", names, output, **window, group=groups)


def _norm(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    names = [graph.weight(p.name, p.array(), record.dtype) for p in record.parameters]
    return graph.node("BatchNormalization", [*inputs, *names], output, epsilon=record.attrs.get("eps", 1e-5))


def _linear(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    named = zip(record.parameters, _arrays(record), strict=True)
    names = [graph.weight(p.name, array, record.dtype) for p, array in named]
    return graph.node("Gemm", [*inputs, *names], output, transB=1)


def _pool(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    if record.attrs.get("keepdims"):
        return graph.node("GlobalAveragePool", inputs, output)
    return graph.node("Flatten", [graph.node("GlobalAveragePool", inputs, f"{output}.mean")], output)


def _standardised_conv(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    (weight,) = (p.array() for p in record.parameters)
    return _convolve(graph, record, inputs[0], output, standardise(weight)[0], None)


def _group_norm(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    """Instance norm of the groups, as if each were a channel; then scale and shift of the real channels."""
    groups, (_, height, width, channels) = record.attrs.get("groups", 1), record.shapes[0]
    ones, zeros = (np.full(groups, value) for value in (1, 0))
    names = [graph.weight(f"{output}.{n}", a, record.dtype) for n, a in (("ones", ones), ("zeros", zeros))]
    apart = graph.weight(f"{output}.apart", np.array([0, groups, -1]), "int64")
    whole = graph.weight(f"{output}.whole", np.array([0, channels, height, width]), "int64")
    split = graph.node("Reshape", [*inputs, apart], f"{output}.groups")
    eps = record.attrs.get("eps", 1e-5)
    normed = graph.node("InstanceNormalization", [split, *names], f"{output}.normed", epsilon=eps)
    x_hat = graph.node("Reshape", [normed, whole], f"{output}.x_hat")
    weight, bias = (graph.weight(p.name, p.array()[:, None, None], record.dtype) for p in record.parameters)
    return graph.node("Add", [graph.node("Mul", [x_hat, weight], f"{output}.scaled"), bias], output)


def _avg_pool(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    window = [record.attrs.get("window", 2)] * 2
    return graph.node("AveragePool", inputs, output, kernel_shape=window, strides=window)


def _bilinear_up(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    size = graph.weight(f"{output}.size", np.array(record.attrs["size"]), "int64")
    how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel", "axes": [2, 3]}
    return graph.node("Resize", [*inputs, "", "", size], output, **how)


def _relu6(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    low, high = (graph.weight(f"{value}", np.array(value), record.dtype) for value in (0, 6))
    return graph.node("Clip", [*inputs, low, high], output)


def _silu(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
    return graph.node("Mul", [*inputs, graph.node("Sigmoid", inputs, f"{output}.sigmoid")], output)


def _plain(kind: str, **attributes: Any) -> Emit:
    def emit(graph: Graph, record: OpRecord, inputs: list[str], output: str) -> str:
        return graph.node(kind, inputs, output, **attributes)

    return emit


EMIT: Mapping[str, Emit] = {
    "conv": _conv,
    "pointwise_conv": _conv,
    "depthwise_conv": _conv,
    "grouped_conv": _conv,
    "standardised_conv": _standardised_conv,
    "frozen_norm": _norm,
    "group_norm": _group_norm,
    "avg_pool": _avg_pool,
    "bilinear_up": _bilinear_up,
    "linear": _linear,
    "global_avg_pool": _pool,
    "relu": _plain("Relu"),
    "relu6": _relu6,
    "hard_swish": _plain("HardSwish"),
    "hard_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "scale": _plain("Mul"),
    "sigmoid": _plain("Sigmoid"),
    "silu": _silu,
    "multiply": _plain("Mul"),
    "add": _plain("Add"),
    "add_channels": _plain("Add"),
}


def to_onnx(network: Network, resolution: int, about: Mapping[str, str]) -> bytes:
    """The network as an ONNX model; `about` is stored as its metadata.

    Raises UsageError where the onnx package is missing, or for an op that has no place in ONNX here.
    """
    helper, numpy_helper, checker, types = _library()
    records, last = _records(network, resolution)
    graph = Graph(helper, numpy_helper)
    values = {-1: _mirrored(graph) if network.mirrored else INPUT}
    for number, record in enumerate(records):
        if record.op.name not in EMIT:
            raise UsageError(f"op {record.op.name} cannot be exported", layer=record.layer, op="export")
        inputs = [values[max(source, -1)] for source in record.sources]
        output = OUTPUT if number == last else f"{record.layer or record.op.name}#{number}"
        values[number] = EMIT[record.op.name](graph, record, inputs, output)
    kind = types[network.dtype]
    images = helper.make_tensor_value_info(INPUT, kind, ["N", network.input_channels, resolution, resolution])
    logits = helper.make_tensor_value_info(OUTPUT, kind, ["N", network.num_classes])
    whole = helper.make_graph(graph.nodes, network.name, [images], [logits], list(graph.weights.values()))
    model = helper.make_model(
        whole, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="minitl"
    )
    helper.set_model_props(model, dict(sorted(about.items())))
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _mirrored(graph: Graph) -> str:
    """The images mirrored in H and W, as a network with SAME padding takes them (see `networks.mirror`)."""
    least = np.iinfo(np.int64).min
    numbers = {"starts": [-1, -1], "ends": [least, least], "axes": [2, 3], "steps": [-1, -1]}
    names = [graph.weight(f"mirror.{name}", np.array(pair), "int64") for name, pair in numbers.items()]
    return graph.node("Slice", [INPUT, *names], "mirrored")


def _records(network: Network, resolution: int) -> tuple[list[OpRecord], int]:
    """What evaluating one image records, and which record gives the logits."""
    tape = Tape(training=False, fused=False)
    tape.recording = True
    output: Var = network(tape, np.zeros((1, resolution, resolution, network.input_channels), network.dtype))
    return [record for record in tape.records if isinstance(record, OpRecord)], output.source


def _library() -> tuple[Any, Any, Any, dict[str, Any]]:
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError:
        raise UsageError("export needs the onnx package", remedy="pip install 'minitl[onnx]'") from None
    return helper, numpy_helper, checker, {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


def largest_difference(content: bytes, network: Network, images: Array) -> tuple[float, float] | None:
    """How far the logits of ONNX Runtime are from minitl's on images (N, R, R, 3), at most, and how large those are.

    None where ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (theirs,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(images.transpose(0, 3, 1, 2))})
    ours = network.predict(images)
    return float(np.abs(theirs - ours).max()), float(np.abs(ours).max())
