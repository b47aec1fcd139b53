"""`minitl export`: a model as ONNX, checked in ONNX Runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from minitl.errors import UsageError
from minitl.export.onnx import INPUT, OUTPUT, largest_difference, to_onnx
from minitl.files import check_writable, write_whole
from minitl.training.model_file import read_model
from minitl.verbs import options

HELP = "write a model as ONNX"
DESCRIPTION = """Writes the network of a model that `minitl train` wrote as ONNX: `images` (N, 3, R, R) in, normalised
as its metadata say, `logits` (N, K) out. Where ONNX Runtime is installed, its logits are compared with minitl's."""
EXAMPLES = """
minitl export photos.safetensors photos.onnx
"""
TOLERANCE = 1e-3  # of the largest logit: float32 sums in another order, through some 50 layers


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `export`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a file that `minitl train` wrote")
    parser.add_argument("file", type=Path, metavar="FILE.onnx", help="where it goes")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Export; 1 if ONNX Runtime computes something else, else 0."""
    if args.file.suffix.lower() != ".onnx":
        raise UsageError(f"unknown file type {args.file.suffix!r}", layer=str(args.file), remedy="use .onnx")
    check_writable(args.file)
    model = read_model(args.model)
    network, resolution = model.network(), model.preprocessing.resolution
    about = {"classes": json.dumps(model.classes), "preprocessing": json.dumps(model.preprocessing.to_json())}
    content = to_onnx(network, resolution, about)
    shape = (2, resolution, resolution, network.input_channels)
    images = np.random.default_rng(0).standard_normal(shape).astype(network.dtype)
    found = largest_difference(content, network, images)
    good = found is None or found[0] <= TOLERANCE * found[1]
    if good:
        write_whole(args.file, content)
    difference = None if found is None else found[0]
    if args.json:
        about_file = {"file": str(args.file), "bytes": len(content), "input": INPUT, "output": OUTPUT}
        options.print_json("export", {**about_file, "checked": found is not None, "largest_difference": difference})
    else:
        print(f"{'wrote' if good else 'not written:'} {args.file}, {len(content) / 1e6:.1f} MB")
        print(_told(found))
    return int(not good)


def _told(found: tuple[float, float] | None) -> str:
    if found is None:
        return "not checked: ONNX Runtime is not installed (pip install 'minitl[onnx]')"
    return f"ONNX Runtime's logits differ by at most {found[0]:.1e} from minitl's, which are up to {found[1]:.1e}"
