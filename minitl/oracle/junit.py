"""The verdicts as a JUnit XML file, which CI systems show beside their own tests."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree as Xml

from minitl.oracle.report import Report


def junit(reports: Sequence[Report], missing: Sequence[str], *, require_all: bool) -> bytes:
    """One `testcase` per case: a `failure` with the report's text, or `skipped` where there is no answer."""
    failures = sum(not report.ok for report in reports) + require_all * len(missing)
    counts = {"tests": len(reports) + len(missing), "failures": failures, "skipped": (not require_all) * len(missing)}
    suite = Xml.Element("testsuite", {"name": "minitl oracle", **{name: str(n) for name, n in counts.items()}})
    for report in reports:
        case = Xml.SubElement(suite, "testcase", {"classname": "minitl.oracle", "name": report.case})
        if not report.ok:
            first = next(line for line in report.lines if not line.ok)
            Xml.SubElement(case, "failure", {"message": str(first)}).text = str(report)
    for name in missing:
        case = Xml.SubElement(suite, "testcase", {"classname": "minitl.oracle", "name": name})
        Xml.SubElement(case, "failure" if require_all else "skipped", {"message": "no answer"})
    return bytes(Xml.tostring(suite, "utf-8", xml_declaration=True)) + b"\n"
