"""docs/algorithm.md: every section that is cited is there, and cited documents are in the repository."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITING = [path for folder in ("amago_ray", "tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]


def sections() -> set[str]:
    """Numbers of headings, of bold paragraphs and of list entries below a heading."""
    found, heading = set(), ""
    for line in (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"## (\d+)\.", line):
            heading = match[1]
            found.add(heading)
        elif match := re.match(r"\*\*(\d+\.\d+) ", line):
            found.add(match[1])
        elif match := re.match(r"(\d+)\. ", line):
            found.add(f"{heading}.{match[1]}")
    return found


def test_every_section_that_is_cited_is_there() -> None:
    known = sections()
    assert {"1", "2.3", "7.4", "14.23"} <= known
    cited = []
    for path in CITING:
        for group in re.findall(
            r"docs/algorithm\.md (§[\d.]+(?:-[\d.]+)?(?:, §[\d.]+)*)", path.read_text(encoding="utf-8")
        ):
            for number in re.findall(r"[\d.]*\d", group):
                cited.append((path.name, number))
    assert len(cited) > 50
    above = {number.split(".")[0] for number in known}
    assert [each for each in cited if each[1] not in known | above] == []


@pytest.mark.parametrize("word", ["PITFALLS", "DESIGN.md", "ALGORITHM.md"])
def test_no_document_is_cited_that_is_not_in_the_repository(word: str) -> None:
    assert [path.name for path in CITING if path != Path(__file__) and word in path.read_text(encoding="utf-8")] == []
