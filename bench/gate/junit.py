"""A result as JUnit XML, which CI systems show as tests: a test case for each row."""

from __future__ import annotations

from xml.etree import ElementTree

from fusetune.bench.gate.result import GateResult
from fusetune.bench.gate.wording import headline, side_text, verdict_text
from fusetune.bench.terminal import one_line

_FAILURES = ("regressed", "missing")


def as_junit(result: GateResult) -> str:
    """Write a result as JUnit XML.

    A row that is regressed or missing is a failure. One that cannot be told is skipped, with what would make it clear.
    A result without rows has one failed test case.

    Args:
        result: of a gate or a comparison.

    Returns:
        An XML document in UTF-8 with its declaration.

    Example:
        >>> from fusetune.bench.gate.result import Row, Side
        >>> row = Row("digits", "step_time_s", "timing", "pass", "No change.")
        >>> print(as_junit(GateResult("digits.yaml", Side("main"), Side("working tree"), (row,))).splitlines()[1])
        <testsuites name="bench gate" tests="1" failures="0" errors="0" time="0.000">

    Source: the schema of Jenkins' xUnit plug-in, junit-10.xsd.
    """
    cases = [_case(row.benchmark, row.metric) for row in result.rows]
    for case, row in zip(cases, result.rows, strict=True):
        said = one_line(f"{row.sentence} {row.advice}".strip())
        if row.outcome in _FAILURES:
            failure = ElementTree.SubElement(case, "failure", message=said, type=row.outcome)
            failure.text = said
        elif row.outcome == "can't tell":
            ElementTree.SubElement(case, "skipped", message=said)
        else:
            ElementTree.SubElement(case, "system-out").text = said
    if not cases:
        cases = [_case(result.title, "comparison")]
        said = one_line(headline(result))
        ElementTree.SubElement(cases[0], "failure", message=said, type="missing").text = said
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
        "time": f"{result.seconds:.3f}",
    }
    skipped = str(sum(case.find("skipped") is not None for case in cases))
    root = ElementTree.Element("testsuites", {"name": f"bench {result.kind}", **counts})
    suite = ElementTree.SubElement(
        root, "testsuite", {"name": one_line(result.title), **counts, "skipped": skipped}
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (
        ("base", side_text(result.base)),
        ("head", side_text(result.head)),
        ("verdict", verdict_text(result.outcome)),
        ("directory", result.directory),
    ):
        if value:
            ElementTree.SubElement(properties, "property", name=name, value=one_line(value))
    suite.extend(cases)
    if result.notes:
        ElementTree.SubElement(suite, "system-out").text = "\n".join(map(one_line, result.notes))
    ElementTree.indent(root)
    body = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _case(benchmark: str, metric: str) -> ElementTree.Element:
    return ElementTree.Element("testcase", classname=one_line(benchmark), name=one_line(metric), time="0.000")
