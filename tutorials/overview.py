"""The course's first picture: what one block keeps under each method, from shapes alone; and the table of all methods.

The blocks are those of the MobileTL paper's Figure 1: 96 -> 576 -> 96 channels, 5x5, 7x7 positions, batch 8, float32.
A buffer that several layers share is counted once, and shown with the convolution among them, which needs it anyway.
"""

import matplotlib as mpl
import minitl
from minitl.methods.table import markdown

from course.figures import BLUE, GREEN, RED, YELLOW, figure, finish
from render import HERE, PAGES, digest, svg

FORMS = {
    "MobileNetV2: ReLU6": {"activation": "relu6", "se_channels": 0, "eps": 1e-5},
    "MobileNetV3: Hard-Swish, SE": {"activation": "hard_swish", "se_channels": 144, "eps": 1e-3},
}
METHODS = {
    "ft-blocks": "all as usual",
    "mobiletl": "MobileTL",
    "mobiletl-exact": "exact slopes",
    "mobiletl-recompute": "recompute",
}
KINDS = {"convolutions": BLUE, "norms": RED, "activations": YELLOW, "squeeze-and-excite": GREEN}


def kind(row):
    """What a kept buffer is shown as."""
    layers = [row.layer, *row.shared_with]
    if any(layer in ("expand", "depthwise", "project") for layer in layers):
        return "convolutions"
    if "norm" in row.layer:
        return "norms"
    return "squeeze-and-excite" if row.layer.startswith("se.") else "activations"


def kept(method, form):
    """Bytes by kind."""
    shape = {"in_channels": 96, "expanded_channels": 576, "out_channels": 96, "kernel": 5}
    net = minitl.methods.get(method, blocks=1).apply(minitl.networks.irb(**shape, **form))
    ledger = minitl.accounting.predict(net, batch=8, resolution=7)
    rows = [row for row in ledger.rows if row.layer != "loss"]
    sums = {name: sum(row.bytes for row in rows if kind(row) == name) for name in KINDS}
    assert sum(sums.values()) == ledger.kept_bytes
    return sums


def draw():
    """The figure."""
    fig, panels = figure(2, height=3, sharex=True, sharey=True)
    for axes, (title, form) in zip(panels, FORMS.items(), strict=True):
        usual = sum(kept("ft-blocks", form).values())
        for place, (method, said) in enumerate(METHODS.items()):
            start, sums = 0.0, kept(method, form)
            for name, count in sums.items():
                label = name if axes is panels[1] and not place else None
                axes.barh(said, count / 1e6, left=start, color=KINDS[name], label=label)
                start += count / 1e6
            less = f" ({100 * (start * 1e6 / usual - 1):.0f} %)" if place else ""
            axes.text(start + 0.1, place, f"{start:.2f} MB{less}", va="center", fontsize=9)
        finish(axes, title, "kept for backward (MB)", xlim=(0, 8.2))
        axes.grid(visible=False, axis="y")
    panels[0].invert_yaxis()
    fig.legend(loc="outside lower center", ncols=4, fontsize=9)
    return fig


def with_table(page):
    """The text of methods.md with its table made anew; what stands before it stays."""
    return page[: page.index("| name |")] + markdown()


if __name__ == "__main__":
    mpl.use("agg")
    drawn = draw()
    (PAGES / "figures" / "block.svg").write_bytes(svg(drawn))
    print(f"data drawn: {digest(drawn)}")
    methods = HERE / "methods.md"
    methods.write_text(with_table(methods.read_text(encoding="utf-8")), encoding="utf-8")
