"""Weights from files: whose names, which conventions, what the report says; and files that are broken or hostile."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from fuzz import FUZZ
from models import batch, stir

import minitl
from minitl import ops
from minitl.arrays import Array
from minitl.errors import DataError, MinitlError, ShapeError, UnknownNameError, ValueRangeError
from minitl.export.onnx import largest_difference, to_onnx
from minitl.layers import Conv, Layer, Linear, Norm
from minitl.networks import Network
from minitl.networks.weights import apart
from minitl.training.weights import load_weights

h5py = pytest.importorskip("h5py")

TABLE: dict[str, Any] = {
    "num_classes": 3,
    "stages": [{"channels": 8, "stride": 2}, {"channels": 8, "kernel": 5, "squeeze_excite": True}],
    "stem": {"channels": 8},
    "block": {"expansion": 2, "activation": "relu6"},
    "head": {"channels": 16},
}
HIDDEN = {**TABLE, "classifier": {"hidden": 24}}


def small(table: dict[str, Any] = TABLE, **options: Any) -> Network:
    return minitl.networks.from_table(table, **options)


def everything(net: Network) -> tuple[Any, ...]:
    """All that loading could change."""
    state = {name: array.tobytes() for name, array in net.state_dict().items()}
    held = {p.name: p.value.tobytes() for p in net.parameters()}
    return state, held, net.table, [(n.eps, n.momentum) for n in net.counters().values()]


def saved(path: Path, state: dict[str, Array]) -> Path:
    safetensors.numpy.save_file({k: np.ascontiguousarray(v) for k, v in state.items()}, path)
    return path


def same_arrays(one: Network, other: Network) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(np.array_equal(a[key], b[key]) for key in a)


# Whose names, whose conventions


def test_its_own_names(tmp_path: Path) -> None:
    net, other = stir(small(seed=1)), small(seed=2)
    report = other.load(saved(tmp_path / "net.safetensors", net.state_dict()))
    assert same_arrays(net, other)
    assert report.loaded == tuple(p.name for p in sorted(net.parameters(), key=lambda p: p.name))
    assert (report.missing, report.replaced, report.unexpected) == ((), (), ())
    assert "the network's own, unchanged" in str(report)


@pytest.mark.parametrize("table", [TABLE, HIDDEN])
@pytest.mark.parametrize("source", ["torchvision", "timm"])
@pytest.mark.parametrize("names", ["torchvision_v2", "torchvision_v3", "timm"])
def test_names_of_another_library(names: str, source: str, table: dict[str, Any], tmp_path: Path) -> None:
    """The file is written with that library's names, by a network that has them."""
    v3 = names == "torchvision_v3" or (names == "timm" and "classifier" in table)
    style = "timm" if source == "timm" else "torchvision_v3" if v3 else "torchvision_v2"
    theirs = stir(small({**table, "names": style}))
    state = theirs.state_dict()
    if source == "timm" and table is HIDDEN:
        state["conv_head.weight"] = state["conv_head.weight"][:, :, None, None]
    net = small({**table, "names": names, "eps": 0.5, "momentum": 0.25}, seed=3)
    report = net.load(saved(tmp_path / "net.safetensors", state), source=source)
    for one, other in zip(net.parameters(), theirs.parameters(), strict=True):
        assert np.array_equal(one.value, other.value), one.name
    if (source, names) == ("timm", "timm"):
        expected = (0.5, 0.25)  # timm's conventions differ from model to model: the table tells them
    else:
        expected = (1e-5, 0.1) if style != "torchvision_v3" else (1e-3, 0.01)
    assert (report.eps, report.momentum, report.padding) == (*expected, "symmetric")
    assert {(n.eps, n.momentum) for n in net.counters().values()} == {expected}


def test_torch_files(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = stir(small(seed=1))
    tensors = {name: torch.tensor(array) for name, array in net.state_dict().items()}
    forms = {
        "plain.pth": tensors,
        "wrapped.pt": {"epoch": 3, "state_dict": tensors, "note": "x"},
        "parallel.pth": {f"module.{name}": tensor for name, tensor in tensors.items()},
        "compiled.pth": {f"_orig_mod.module.{name}": tensor for name, tensor in tensors.items()},
        "both.pth": {"model": {f"module.{name}": tensor for name, tensor in tensors.items()}},
        "parameters.pth": {name: torch.nn.Parameter(t) if t.is_floating_point() else t for name, t in tensors.items()},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
        other = small(seed=2)
        other.load(tmp_path / name, source="torchvision")
        assert same_arrays(net, other), name
    rounded = {name: t.bfloat16() if t.is_floating_point() else t for name, t in tensors.items()}
    torch.save(rounded, tmp_path / "b.pth")
    import_module("safetensors.torch").save_file(rounded, tmp_path / "b.safetensors")
    for name in ("b.pth", "b.safetensors"):
        other = small(seed=2)
        other.load(tmp_path / name)
        assert all(np.array_equal(p.value, rounded[p.name].float().numpy()) for p in other.parameters()), name


# Keras


def kernel(layer: Layer, array: Array, as_conv: bool) -> Array:
    if isinstance(layer, Linear):
        return array.T[None, None] if as_conv else array.T
    depthwise = isinstance(layer, Conv) and layer.op is ops.depthwise_conv
    return array.transpose(2, 3, 0, 1) if depthwise else array.transpose(2, 3, 1, 0)


def keras_layers(net: Network, *, convs: bool = False) -> list[tuple[str, str, dict[str, Array]]]:
    """(class, name, arrays) of each layer as Keras would have it; `convs`: linear layers as 1x1 convolutions."""
    found, state = [], net.state_dict()
    for number, layer in enumerate(net.layers()):
        own = {name: state[f"{layer.path}.{name}"] for name in layer.parameters}
        if isinstance(layer, Norm):
            names = ("gamma", "beta", "moving_mean", "moving_variance")
            found.append(("BatchNormalization", f"norm{number}", dict(zip(names, own.values(), strict=True))))
        elif own:
            arrays = {"kernel": kernel(layer, own.pop("weight"), convs), **own}
            dense = isinstance(layer, Linear) and not convs
            kind = "Dense" if dense else "DepthwiseConv2D" if arrays["kernel"].shape[3] == 1 else "Conv2D"
            found.append((kind, f"{kind.lower()}{number}", arrays))
    return found


def config(net: Network, layers: list[tuple[str, str, dict[str, Array]]], **norm: float) -> str:
    entries = [
        {"class_name": kind, "config": {"name": name, **(norm if "Batch" in kind else {})}} for kind, name, _ in layers
    ]
    return json.dumps({"class_name": "Functional", "config": {"name": "model", "layers": entries}})


NORM = {"epsilon": 0.002, "momentum": 0.9}


def old_h5(path: Path, net: Network, **options: Any) -> None:
    layers = keras_layers(net, **options)
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config(net, layers, **NORM)
        root = file.create_group("model_weights")
        layers.insert(3, ("ReLU", "relu", {}))  # an empty list of names
        names = [name for _, name, _ in layers]
        root.attrs["layer_names0"], root.attrs["layer_names1"] = names[:5], names[5:]  # a long list is split
        for _, name, arrays in layers:
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{variable}:0" for variable in arrays]
            for variable, array in arrays.items():
                group[f"{name}/{variable}:0"] = array


def nested_h5(path: Path, net: Network) -> None:
    """The model is one layer, of which the upper half was trained: its arrays stand first."""
    layers = keras_layers(net)
    with h5py.File(path, "w") as file:
        inner = json.loads(config(net, layers, **NORM))
        outer = {"class_name": "Functional", "config": {"name": "outer", "layers": [inner]}}
        file.attrs["model_config"] = json.dumps(outer)
        root = file.create_group("model_weights")
        root.attrs["layer_names"] = ["model"]
        group = root.create_group("model")
        half = len(layers) // 2
        ordered = [*layers[half:], *layers[:half]]
        group.attrs["weight_names"] = [f"{name}/{variable}" for _, name, arrays in ordered for variable in arrays]
        for _, name, arrays in layers:
            for variable, array in arrays.items():
                group[f"{name}/{variable}"] = array


SNAKE = {
    "Conv2D": "conv2d", "DepthwiseConv2D": "depthwise_conv2d", "BatchNormalization": "batch_normalization",
    "Dense": "dense",
}  # fmt: skip


def weights_h5(path: Path, net: Network) -> None:
    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for kind, _, arrays in keras_layers(net):
            number = counts.setdefault(kind, 0)
            counts[kind] += 1
            group = f"layers/{SNAKE[kind]}{f'_{number}' if number else ''}/vars"
            for place, array in enumerate(arrays.values()):
                file[f"{group}/{place}"] = array
        file["layers/seed/vars/0"] = np.zeros(2, np.uint32)


def keras_zip(path: Path, net: Network) -> None:
    inner = path.with_suffix(".inner.h5")
    weights_h5(inner, net)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config(net, keras_layers(net), **NORM))
        archive.write(inner, "model.weights.h5")


WRITERS: dict[str, Callable[[Path, Network], None]] = {
    "old.h5": old_h5, "nested.h5": nested_h5, "new.weights.h5": weights_h5, "new.keras": keras_zip,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_keras_files(name: str, tmp_path: Path) -> None:
    theirs = stir(small({**TABLE, "padding": "same"}))
    path = tmp_path / name
    WRITERS[name](path, theirs)
    net = small(seed=3)
    report = net.load(path, source="keras", strict=name in ("old.h5", "nested.h5"))
    assert same_arrays(net, theirs)
    told = name != "new.weights.h5"
    assert (report.eps, report.momentum) == ((0.002, 0.1) if told else (1e-3, 0.001))
    assert ("the file tells" in report.conventions, "does not tell" in report.conventions) == (told, not told)
    assert report.padding == net.table["padding"] == "same"
    assert set(report.unexpected) <= {"seed/0"}
    images, _ = batch(net, resolution=24)
    theirs.take_over({}, eps=report.eps, momentum=report.momentum, padding="same")
    assert net.predict(images).tobytes() == theirs.predict(images).tobytes()


def test_linear_layers_that_are_convolutions_in_keras(tmp_path: Path) -> None:
    theirs = stir(small(HIDDEN))
    old_h5(tmp_path / "v3.h5", theirs, convs=True)
    net = small(HIDDEN, seed=3)
    net.load(tmp_path / "v3.h5", source="keras")
    assert same_arrays(net, theirs)


def test_a_mirrored_network_takes_symmetric_weights_again(tmp_path: Path) -> None:
    keras, torchvision = stir(small(seed=1), 1), stir(small(seed=2), 2)
    old_h5(tmp_path / "k.h5", keras)
    path = saved(tmp_path / "t.safetensors", torchvision.state_dict())
    net = small(seed=3)
    net.load(tmp_path / "k.h5", source="keras")
    assert same_arrays(net, keras)
    assert net.mirrored
    report = net.load(path, source="torchvision")
    assert (net.mirrored, report.padding, report.eps) == (False, "symmetric", 1e-5)
    assert same_arrays(net, torchvision)


def test_a_mirrored_network_is_exported_with_its_mirror() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    net = stir(small({**TABLE, "padding": "same"}))
    images, _ = batch(net, resolution=32)
    found = largest_difference(to_onnx(net, 32, {}), net, images)
    assert found
    assert found[0] < 1e-5 * found[1]


def test_training_starts_from_the_weights_of_a_source(tmp_path: Path) -> None:
    theirs = stir(small(num_classes=9))
    old_h5(tmp_path / "k.h5", theirs)
    net = small()
    told = load_weights(tmp_path / "k.h5", "keras").into(net)
    assert "replaced: classifier.1.weight, classifier.1.bias" in told
    assert (net.mirrored, net.stem.norm.eps) == (True, 0.002)
    assert np.array_equal(net.state_dict()["features.0.0.weight"], theirs.state_dict()["features.0.0.weight"])


# Classifier, strictness, report


def test_the_classifier_may_be_ones_own(tmp_path: Path) -> None:
    theirs, last = stir(small(num_classes=5)), ("classifier.1.weight", "classifier.1.bias")
    path = saved(tmp_path / "net.safetensors", theirs.state_dict())
    net = small(seed=3)
    before = everything(net)
    with pytest.raises(ShapeError, match=r"classifier.1: expected 3 classes, got 5 in the file; use classifier='repl"):
        net.load(path, source="torchvision")
    assert everything(net) == before
    for how, classes in (("replace", 3), ("auto", 3), ("replace", 5), ("auto", 5)):
        net = small(seed=3, num_classes=classes)
        fresh = {name: net.state_dict()[name] for name in last}
        report = net.load(path, source="torchvision", classifier=how)
        kept = how == "replace" or classes == 3
        assert report.replaced == (last if kept else ())
        assert len(report.loaded) == len(list(net.parameters())) - 2 * kept
        state, source = net.state_dict(), fresh if kept else theirs.state_dict()
        assert all(np.array_equal(state[name], source[name]) for name in last)
        assert np.array_equal(state["features.0.0.weight"], theirs.state_dict()["features.0.0.weight"])


def test_strict_and_not(tmp_path: Path) -> None:
    state = stir(small()).state_dict()
    del state["features.0.0.weight"]
    state["extra.weight"] = np.ones(3)
    path = saved(tmp_path / "net.safetensors", state)
    net = small(seed=3)
    before = everything(net)
    with pytest.raises(UnknownNameError, match=r"1 arrays missing \['features.0.0.weight'\], 1 unexpected \['extra.w"):
        net.load(path)
    assert everything(net) == before
    report = net.load(path, strict=False)
    assert (report.missing, report.unexpected) == (("features.0.0.weight",), ("extra.weight",))
    after = net.state_dict()
    assert after["features.0.0.weight"].tobytes() == before[0]["features.0.0.weight"]
    assert np.array_equal(after["features.0.1.weight"], state["features.0.1.weight"])


def test_a_momentum_of_ones_own(tmp_path: Path) -> None:
    old_h5(tmp_path / "k.h5", small())
    net = small()
    before = everything(net)
    for wrong in (0, 1.5, "0.1", float("nan"), True):
        with pytest.raises(ValueRangeError, match="expected momentum above 0, at most 1"):
            net.load(tmp_path / "k.h5", source="keras", momentum=wrong)
    assert everything(net) == before
    report = net.load(tmp_path / "k.h5", source="keras", momentum=0.05)
    assert {(n.eps, n.momentum) for n in net.counters().values()} == {(0.002, 0.05)}
    assert (report.momentum, report.conventions.partition("; momentum ")[2]) == (0.05, "as asked for, not 0.1")


def test_strict_refuses_what_is_only_too_much(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.safetensors", {**small().state_dict(), "extra.weight": np.ones(3)})
    with pytest.raises(UnknownNameError, match=r"0 arrays missing \[\], 1 unexpected \['extra.weight'\]"):
        small().load(path)


def test_the_report_as_text_and_as_data(tmp_path: Path) -> None:
    path = tmp_path / "k.h5"
    old_h5(path, stir(small(num_classes=9)))
    report = small().load(path, source="keras", classifier="replace")
    assert str(report).splitlines() == [
        f"{path} (keras): {len(report.loaded)} arrays loaded",
        "replaced: classifier.1.weight, classifier.1.bias",
        "norms: eps 0.002, momentum 0.1; padding: same (images and kernels are mirrored)",
        "conventions: Keras' padding; eps and momentum as the file tells",
    ]
    data = json.loads(json.dumps(report.to_json()))
    assert data["replaced"] == ["classifier.1.weight", "classifier.1.bias"]
    assert (data["source"], data["padding"], data["missing"]) == ("keras", "same", [])


# Refused, and nothing changed


def spoilt(tmp_path: Path, change: Callable[[dict[str, Array]], None]) -> Path:
    state = stir(small()).state_dict()
    change(state)
    return saved(tmp_path / "bad.safetensors", state)


REFUSED: dict[str, tuple[Callable[[dict[str, Array]], None], type[MinitlError], str]] = {
    "shape": (
        lambda s: s.update({"features.0.0.weight": np.ones((8, 3, 5, 5))}), ShapeError,
        "features.0.0.weight: expected shape (8, 3, 3, 3), got (8, 3, 5, 5)",
    ),
    "nan": (lambda s: s["features.0.1.bias"].fill(np.nan), ValueRangeError, "finite float32 values"),
    "variance": (lambda s: s["features.0.1.running_var"].fill(-1), ValueRangeError, "no negative variance"),
    "integers": (lambda s: s.update({"features.0.1.bias": np.ones(8, int)}), MinitlError, "floating point, got int64"),
    "a counter like a kernel": (
        lambda s: s.update({"features.0.1.num_batches_tracked": np.ones((1, 1, 1, 1), int)}), ValueRangeError,
        "features.0.1.num_batches_tracked: expected a count, 0 or more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_load_changes_nothing(case: str, tmp_path: Path) -> None:
    change, kind, words = REFUSED[case]
    path, net = spoilt(tmp_path, change), small({**TABLE, "padding": "same", "eps": 0.5}, seed=3)
    before = everything(net)
    with pytest.raises(kind) as caught:
        net.load(path, source="torchvision")  # it would change eps, momentum and padding too
    assert words in str(caught.value)
    assert everything(net) == before


def test_wrong_choices(tmp_path: Path) -> None:
    net, path = small(), saved(tmp_path / "net.safetensors", small().state_dict())
    for options, words in [
        ({"source": "tensorflow"}, "unknown source 'tensorflow'; choose one of: torchvision, timm, keras"),
        ({"source": None}, "unknown source None"),
        ({"classifier": "keep"}, "unknown classifier 'keep'; choose one of: load, replace, auto"),
        ({"source": "keras"}, "no Keras file, by its name; known are .h5, .hdf5, .keras"),
    ]:
        with pytest.raises(MinitlError) as caught:
            net.load(path, **options)
        assert words in str(caught.value)
    with pytest.raises(DataError, match=r"no file of weights, by its name; known are .safetensors, .pth"):
        net.load(tmp_path / "net.npz")
    with pytest.raises(DataError, match=r"k.h5: a file of Keras' by its name; say so: source='keras', --source keras"):
        net.load(tmp_path / "k.h5")
    for name in ("none.safetensors", "none.pth", "none.h5"):
        with pytest.raises(DataError, match=r"[Nn]o such file"):
            net.load(tmp_path / name, source="keras" if name.endswith("h5") else "")


def test_another_network_in_keras(tmp_path: Path) -> None:
    old_h5(tmp_path / "k.h5", small({**TABLE, "stages": TABLE["stages"][:1]}))
    net = small()
    before = everything(net)
    with pytest.raises(DataError, match=r"network has 8 convolutions, the file 4; choose the file's network"):
        net.load(tmp_path / "k.h5", source="keras")
    assert everything(net) == before


# Hostile files


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, (os.environ["MINITL_EVIL"],)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setenv("MINITL_EVIL", str(tmp_path / "evil"))
    torch.save({"features.0.0.weight": Evil()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"features.0.0.weight": Evil()}))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(DataError, match=f"{name}: cannot be read as weights: it holds more than tensors"):
            small().load(tmp_path / name)
    assert not (tmp_path / "evil").exists()


def test_a_tensor_that_pretends_to_be_large(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"a": torch.zeros(1).expand(10**9)}, tmp_path / "large.pth")
    torch.save({"a": torch.zeros(1).expand(1000)}, tmp_path / "small.pth")
    for name, words in [("large.pth", "1,000,000,000 elements"), ("small.pth", "larger than what the file stores")]:
        with pytest.raises(DataError, match=words):
            small().load(tmp_path / name)


def test_arrays_of_other_files_are_not_read(tmp_path: Path) -> None:
    net = stir(small())
    old_h5(tmp_path / "other.h5", net)
    kernel = keras_layers(net)[0]
    raw = tmp_path / "raw.bin"
    raw.write_bytes(kernel[2]["kernel"].tobytes())
    links = {
        "array": h5py.ExternalLink("other.h5", f"model_weights/{kernel[1]}/{kernel[1]}/kernel:0"),
        "group": h5py.ExternalLink("other.h5", "model_weights"),
    }
    for what, link in links.items():
        path = tmp_path / f"{what}.h5"
        old_h5(path, net)
        with h5py.File(path, "r+") as file:
            place = "model_weights" if what == "group" else f"model_weights/{kernel[1]}/{kernel[1]}/kernel:0"
            del file[place]
            file[place] = link
        with pytest.raises(DataError):
            small().load(path, source="keras")
    for what in ("stored", "virtual"):
        path = tmp_path / f"{what}.h5"
        old_h5(path, net)
        with h5py.File(path, "r+") as file:
            group, shape = file[f"model_weights/{kernel[1]}/{kernel[1]}"], kernel[2]["kernel"].shape
            del group["kernel:0"]
            if what == "stored":
                group.create_dataset("kernel:0", shape, "f4", external=[(str(raw), 0, raw.stat().st_size)])
            else:
                layout = h5py.VirtualLayout(shape, "f4")
                place = f"model_weights/{kernel[1]}/{kernel[1]}/kernel:0"
                layout[...] = h5py.VirtualSource(str(tmp_path / "other.h5"), place, shape)
                group.create_virtual_dataset("kernel:0", layout)
        with pytest.raises(DataError, match="is stored in another file"):
            small().load(path, source="keras")


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1 << 20, 1 << 20), "1,099,511,627,776 elements"),
        ((1 << 10, 1 << 12), "larger than what the file stores of it"),
    ],
)
def test_arrays_that_claim_to_be_huge_are_not_allocated(shape: tuple[int, int], words: str, tmp_path: Path) -> None:
    path = tmp_path / "huge.h5"
    old_h5(path, small())
    with h5py.File(path, "r+") as file:
        name = keras_layers(small())[0][1]
        group = file[f"model_weights/{name}/{name}"]
        del group["kernel:0"]
        group.create_dataset("kernel:0", shape, "f4", chunks=(1, 1024))
    with pytest.raises(DataError, match=words):
        small().load(path, source="keras")


@pytest.mark.parametrize(
    ("program", "told"),
    [("input(); time.sleep(99)", "does not come to an end of it in 0.5 s"),
     ("input(); os.abort()", "breaks down on it"), ("os.abort()", "breaks down on it")],
)  # fmt: skip
def test_a_library_that_fails_on_a_file_is_told(
    program: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_h5(tmp_path / "k.h5", small())
    monkeypatch.setattr(apart, "SERVE", f"import os, time; {program}")
    monkeypatch.setattr(apart, "PATIENCE", 0.5 if "sleep" in program else 60)
    with pytest.raises(DataError, match=f"k.h5: cannot be read as weights: the HDF5 library {told}; save it anew"):
        small().load(tmp_path / "k.h5", source="keras")


def test_a_text_beyond_its_heap_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The size of one text in a heap of them leads into the room that is left, where HDF5 2.0.0 goes on for ever."""
    path = tmp_path / "k.h5"
    old_h5(path, small())
    raw = bytearray(path.read_bytes())
    places = [raw.index(b"GCOL") + 16]
    while raw[at := places[-1]]:  # an object's number, which is 0 of what is left; its size and bytes from 8 on
        places.append(at + 16 + -(-int.from_bytes(raw[at + 8 : at + 16], "little") // 8) * 8)
    raw[places[-3] + 8] = 225
    path.write_bytes(raw)
    monkeypatch.setattr(apart, "PATIENCE", 4)
    net = small(seed=3)
    before = everything(net)
    with pytest.raises(DataError, match=r"k.h5: cannot be read as weights"):
        net.load(path, source="keras")
    assert everything(net) == before


class Kept:
    """Reads one file after the other in one process, and in a new one where a file was too much for it."""

    def __init__(self) -> None:
        self.reader, self.started = apart.Reader(), 1

    def __call__(self, path: Path) -> Any:
        if not self.reader.alive:
            self.reader, self.started = apart.Reader(), self.started + 1
        return self.reader.read(path)


@pytest.mark.parametrize("name", [*WRITERS, "net.safetensors", "net.pth"])
def test_damaged_files_are_refused_or_loaded_whole(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes changed, cut off and added, at random places: an error of one line, or a load; and never half of one."""
    kept = Kept()
    monkeypatch.setattr("minitl.networks.weights.sources.read_apart", kept)
    monkeypatch.setattr(apart, "PATIENCE", 5)
    path, theirs, rng = tmp_path / name, stir(small()), np.random.default_rng(0)
    source = "keras" if name in WRITERS else ""
    if name in WRITERS:
        WRITERS[name](path, theirs)
    elif name == "net.pth":
        torch = pytest.importorskip("torch")
        torch.save({key: torch.tensor(array) for key, array in theirs.state_dict().items()}, path)
    else:
        saved(path, theirs.state_dict())
    whole, net, refused = path.read_bytes(), small(seed=3), 0
    for _ in range(FUZZ):
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            near_the_start = int(place) % 4096 if rng.integers(2) else int(place)
            data[near_the_start] = rng.integers(256)
        cut = int(rng.integers(0, len(data))) if rng.integers(4) == 0 else len(data)
        path.write_bytes(data[:cut])
        before = everything(net)
        try:
            net.load(path, source=source, strict=False)
        except MinitlError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
            assert everything(net) == before
    kept.reader.__exit__(None, None, None)
    print(f"{name}: {refused} of {FUZZ} refused, {kept.started - 1} of them by ending the process that read them")
    assert refused > FUZZ / 8
