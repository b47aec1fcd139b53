"""Place the step of every shipped network under every method in one block, and print how far that is from the bound.

    python tests/accounting/arenas.py                                    # all: some minutes
    python tests/accounting/arenas.py --networks 'mobilenet_v3*' --methods 'subspace*' --apply

A line is network, method, blocks (1, 5 and all, where a method takes them), peak, size, size over peak, and the
seconds the placement took, for 8 images of 224 x 224 (`digits_irb`: 24 x 24) and 100 classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from fnmatch import fnmatchcase
from time import perf_counter

import minitl
from minitl.accounting import arena
from minitl.networks.builtin import NETWORKS

MOST = 1.05  # times the bound


def cases(networks: str, methods: str) -> Iterator[tuple[str, str, int | None]]:
    """Network, method and blocks."""
    for name in NETWORKS:
        if fnmatchcase(name, networks):
            count = len(minitl.networks.get(name, num_classes=10).blocks)
            for method, found in minitl.methods.METHODS.items():
                if fnmatchcase(method, methods):
                    yield from ((name, method, b) for b in ((1, 5, count) if found.takes_blocks else (None,)))


def main() -> int:
    """Print a line for each case and the largest ratio; 1 where one is above MOST."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--networks", default="*")
    parser.add_argument("--methods", default="*")
    parser.add_argument("--apply", action="store_true")
    given = parser.parse_args()
    ratios = {}
    for name, method, blocks in cases(given.networks, given.methods):
        model = minitl.methods.get(method, blocks).apply(minitl.networks.get(name, num_classes=100))
        begin = perf_counter()
        found = arena(model, batch=8, resolution=24 if name == "digits_irb" else 224, apply=given.apply)
        case = f"{name:20} {method:24} {blocks or '':>3}"
        ratios[case] = found.ratio
        sizes = f"{found.lower_bound_bytes:12,} {found.size_bytes:12,}"
        print(f"{case} {sizes} {found.ratio:.4f} {perf_counter() - begin:5.1f} s", flush=True)
    worst = max(ratios, key=lambda case: ratios[case])
    print(f"{len(ratios)} placements, the largest {ratios[worst]:.4f} of its bound: {' '.join(worst.split())}")
    return int(ratios[worst] > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
