"""What was measured, as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from minitl.accounting.table import table
from minitl.bench.busy import warning
from minitl.bench.cold import First
from minitl.bench.compare import Result
from minitl.bench.scale import Size


def results_tables(results: Sequence[Result], means: Mapping[str, float], roof: float) -> list[str]:
    """A line per result; then the geometric means of the ratios over the blocks, and a warning where it was busy.

    `roof`: the multiply-adds of all threads in registers, in GFLOP/s.
    """
    body = [
        (
            r.case,
            r.method,
            f"{r.ours_ms:.2f}",
            _number(r.torch_ms, ".2f"),
            _number(r.ratio, ".2f"),
            r.torch_variant or "-",
            _number(r.speedup, ".2f"),
            f"{100 * 2 * r.gmacs / (1e-3 * r.ours_ms * roof):.0f}",
            f"{r.gemm_ms:.2f}",
            *map(_mb, (r.ours_peak_bytes, r.predicted_growth_bytes, r.torch_peak_bytes, r.torch_variant_peak_bytes)),
            f"{r.steps}",
            f"{100 * r.spread:.0f}",
        )
        for r in results
    ]
    times = ("minitl ms", "torch ms", "ratio", "torch's fastest", "to 1 thread", "roof %", "gemm ms")
    peaks = ("minitl MB", "predicted MB", "torch's modules MB", "fastest MB")
    header = ("case", "method", *times, *peaks, "steps", "spread %")
    right = [i for i in range(2, len(header)) if i != header.index("torch's fastest")]
    dropped = ("steps", *peaks[:1:-1], "spread %", "gemm ms", "predicted MB", "torch's fastest", "roof %")
    lines = [f"geometric mean of the ratios of the blocks, {name}: {mean:.3f}" for name, mean in means.items()]
    busy = warning([r.others_busy for r in results if r.others_busy is not None])
    return [table(header, body, right=right, optional=dropped), "\n".join(lines) + busy]


def sizes_tables(sizes: Sequence[Size]) -> list[str]:
    """A line a size."""
    body = [
        (
            s.batch,
            s.resolution,
            f"{s.ms:.1f}",
            f"{s.ms_per_image:.2f}",
            *map(_mb, (s.peak_bytes, s.predicted_growth_bytes, s.predicted_peak_bytes, s.kept_bytes)),
        )
        for s in sizes
    ]
    header = (
        "batch",
        "px",
        "ms",
        "ms an image",
        "grows MB",
        "predicted MB",
        "all in all MB",
        "kept MB",
    )
    return [f"{sizes[0].network}, {sizes[0].method}", table(header, body, right=range(len(header)))]


def firsts_tables(firsts: Sequence[First], importing: float) -> list[str]:
    """A line a step."""
    body = [(f.case, f.method, f"{f.cold_s:.2f}", f"{f.cached_s:.2f}", f"{f.warm_s:.3f}") for f in firsts]
    header = ("case", "method", "compiling s", "from the cache s", "a step s")
    return [table(header, body, right=(2, 3, 4)), f"import minitl: {importing:.2f} s"]


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _mb(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:,.1f}"
