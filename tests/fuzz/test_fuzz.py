"""Hostile requests to the running service: 2,000 mutated ones, and the ones that are made by hand."""

from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import Campaign, Findings
from tests.fuzz.inputs import bombs, mutated
from tests.fuzz.target import Target, start

pytestmark = pytest.mark.slow
COUNT = 2000
SECONDS = 5
"""In which every response must be there while other tests use the cores; 1 on a quiet machine."""
SHOWN = 20


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with start(tmp_path_factory.mktemp("target"), workers=2) as target:
        yield target


def assert_no_fault(findings: Findings) -> None:
    counted = [f"{count} x {kind}: {sentence}" for (kind, sentence), count in findings.counted().most_common()]
    assert not findings.faults, "\n".join([*counted, "", *map(str, findings.faults[:SHOWN])])


def test_mutated_requests_get_a_result_or_a_problem(target: Target) -> None:
    findings = Campaign(target, seconds=SECONDS).run(mutated(COUNT))
    assert_no_fault(findings)
    assert findings.statuses.total() == COUNT


def test_bombs_get_a_result_or_a_problem_in_time(target: Target) -> None:
    """One after the other, so that none is rejected unread with 429 because of the one before."""
    assert_no_fault(Campaign(target, seconds=SECONDS).run(bombs(), connections=1))
