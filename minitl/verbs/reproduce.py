"""`minitl reproduce`: published figures beside the ones minitl computes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

from minitl.accounting.plot import plot_kept
from minitl.accounting.table import table
from minitl.errors import unknown
from minitl.reproduce import (
    ef_train,
    figure1,
    finetuning,
    fused_update,
    gradient_filter,
    kept_inputs,
    rep_net,
    results,
    slope,
    sparse_update,
    subspace,
    table1,
    tinytl,
)
from minitl.reproduce.result import KINDS, PUBLISHED, Result
from minitl.verbs import options
from minitl.verbs.terminal import show

HELP = "published figures against computed ones"
DESCRIPTION = """Computes the figures that the MobileTL paper and the systems around it publish, from tapes and
shapes, and prints both with the difference. `rounded` and `truncated` say how the computed figure gives the printed
digits; one that `differs` stays in the table."""
EXAMPLES = """
minitl reproduce
minitl reproduce table1
minitl reproduce figure1 --plot figure1.png
"""

ITEMS: dict[str, Callable[[], list[Result]]] = {
    "table1": table1.results,
    "figure1": figure1.results,
    "finetuning": finetuning.results,
    "results": results.results,
    "tinytl": tinytl.results,
    "gradient-filter": gradient_filter.results,
    "sparse-update": sparse_update.results,
    "subspace": subspace.results,
    "slope": slope.results,
    "rep-net": rep_net.results,
    "kept-inputs": kept_inputs.results,
    "fused-update": fused_update.results,
    "ef-train": ef_train.results,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `reproduce`."""
    parser.add_argument("item", nargs="?", default="all", metavar="ITEM", help=f"{', '.join(ITEMS)} or all")
    options.add_plot(parser, "Figure 1")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Reproduce; the exit code is 0 also where a figure differs, which the table says."""
    if args.item != "all" and args.item not in ITEMS:
        raise unknown("item", args.item, (*ITEMS, "all"))
    found = [row for name, rows in ITEMS.items() if args.item in (name, "all") for row in rows()]
    if args.json:
        options.print_json("reproduce", {"results": [row.to_json() for row in found]})
    else:
        _print(found)
    if args.plot:
        plot_kept(figure1.ledgers(), args.plot, title="One block: 96 -> 576 -> 96, 7x7, batch 8 (SE 144 in V3)")
        options.tell_file(args, args.plot)
    return 0


def _print(found: Sequence[Result]) -> None:
    body = [
        (
            row.item,
            row.quantity,
            row.published.replace("+-", " +- "),
            f"{row.computed:,.{row.decimals}f}",
            f"{row.difference:+,.{row.decimals}f}",
            row.unit,
            row.verdict if row.kind == PUBLISHED else f"{row.verdict} ({row.kind})",
            row.convention,
        )
        for row in found
    ]
    header = ("item", "quantity", "published", "computed", "difference", "unit", "verdict", "convention")
    optional = ("convention", "item", "unit", "difference")
    show(table(header, body, right=(2, 3, 4), optional=optional))
    for note in dict.fromkeys(row.note for row in found if row.note):
        print()
        show(f"{'; '.join(f'{row.item}, {row.quantity}' for row in found if row.note == note)}: {note}")
    if len({row.item for row in found}) > 1:
        print()
        show(_counts_by_item(found))
    for kind in KINDS:
        verdicts = [row.verdict for row in found if row.kind == kind]
        if verdicts:
            exact, read = sum(v in ("rounded", "truncated") for v in verdicts), verdicts.count("within reading")
            fitted = len(verdicts) - exact - read - verdicts.count("differs")
            near = f", {fitted} as near as their fit says" if fitted else ""
            print()
            show(
                f"{kind}: {exact + read + fitted} of {len(verdicts)} come out, {exact} to the printed digit and {read} "
                f"within the error of reading them off a plot{near}"
            )


def _counts_by_item(found: Sequence[Result]) -> str:
    """How many figures of each item and kind come out, of how many."""
    lines = []
    for item in dict.fromkeys(row.item for row in found):
        verdicts = [[row.verdict for row in found if (row.item, row.kind) == (item, kind)] for kind in KINDS]
        lines.append((item, *(f"{len(v) - v.count('differs')} of {len(v)}" if v else "" for v in verdicts)))
    return table(("come out, by item", *KINDS), lines, right=range(1, 1 + len(KINDS)))
