"""The oracle: cases that tell whether somebody else's implementation of a step is right, and where it is not.

    for case in minitl.oracle.cases("irb*"):
        case.check(implementation(case))     # a dictionary of arrays by name, made from case.inputs and case.attrs

`make` gives cases of one's own.
"""

from minitl.oracle.builtin import Entry, cases, entries
from minitl.oracle.case import SCHEMA, Case
from minitl.oracle.make import make
from minitl.oracle.report import Line, Mismatch, Report
from minitl.oracle.store import CaseError, load, save

__all__ = [
    "SCHEMA",
    "Case",
    "CaseError",
    "Entry",
    "Line",
    "Mismatch",
    "Report",
    "cases",
    "entries",
    "load",
    "make",
    "save",
]
