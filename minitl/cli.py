"""The command line: `minitl VERB`. It parses, hands over to the verb, and turns every ending into an exit code.

0 done; 1 the check or comparison failed; 2 bad usage, bad input or a refusal of the operating system, one line on
stderr; 70 an internal error, one line, more with `--traceback`; 130 interrupted (Ctrl-C); 143 terminated (SIGTERM).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from minitl import __version__
from minitl.verbs import (
    bench,
    compare,
    endings,
    estimate,
    evaluate,
    export,
    inspect,
    oracle,
    plan,
    predict,
    reproduce,
    train,
)
from minitl.verbs.completion import Completion, complete
from minitl.verbs.parsing import Parser, one_line

DESCRIPTION = "MobileTL in NumPy and Numba: fine-tune MobileNets in little memory, to the byte."
EXAMPLES = """
minitl inspect irb --method mobiletl
minitl plan mobilenet_v3_small --budget 40MB --of peak
minitl compare --plots plots
minitl VERB --help
"""
VERBS = {
    "bench": bench,
    "compare": compare,
    "estimate": estimate,
    "evaluate": evaluate,
    "export": export,
    "inspect": inspect,
    "oracle": oracle,
    "plan": plan,
    "predict": predict,
    "reproduce": reproduce,
    "train": train,
}


def parser() -> Parser:
    """The parser of all verbs."""
    top = Parser(prog="minitl", description=DESCRIPTION, examples=EXAMPLES)
    top.add_argument("--version", action="version", version=f"minitl {__version__}")
    top.add_argument("--completion", action=Completion, help="print what makes a shell complete minitl's words")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, verb in VERBS.items():
        added = verbs.add_parser(name, help=verb.HELP, description=verb.DESCRIPTION, examples=verb.EXAMPLES)
        verb.add_arguments(added)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code; without `arguments` it is what the process does, which then ends."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with endings.signals_as_interrupts(to_the_end=arguments is None):
        try:
            endings.prepare_streams()
            top = parser()
            complete(top)
            args = top.parse_args(words or ["--help"])
            code: int = VERBS[args.verb].run(args)
            sys.stdout.flush()
            return code
        except (Exception, KeyboardInterrupt) as error:
            code, message = endings.explain(error)
            endings.let_go_of_stdout()
            if "--traceback" in words:
                endings.print_traceback(error)
            if message:
                print(one_line(_told(words, message)), file=sys.stderr)
            return code


def _told(words: Sequence[str], message: str) -> str:
    """`minitl VERB: message`, as far as there is a verb; an error that begins with the verb itself says it once."""
    verb = next((word for word in words if word in VERBS), "")
    return f"{f'minitl {verb}'.rstrip()}: {message.removeprefix(f'{verb}: ')}"


if __name__ == "__main__":
    sys.exit(main())
