import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from model.evaluation.comparison import compare, mcnemar
from model.evaluation.label_issues import find_label_issues

COUNTS = st.integers(0, 400)


@given(COUNTS, COUNTS)
def test_the_p_value_is_that_of_the_binomial_test(only_first, only_second):
    tosses = only_first + only_second
    expected = binomtest(only_first, tosses).pvalue if tosses else 1.0
    assert mcnemar(only_first, only_second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_thousands_of_differences_do_not_underflow_or_overflow():
    assert mcnemar(5000, 5000) == 1.0
    assert 0 <= mcnemar(0, 10_000) < 1e-300


def test_networks_are_compared_on_what_one_alone_gets_right():
    first = np.array([True] * 90 + [False] * 10)
    second = np.array([True] * 70 + [False] * 20 + [True] * 5 + [False] * 5)
    comparison = compare(first, second)
    assert (comparison.only_first, comparison.only_second) == (20, 5)
    assert comparison.difference == pytest.approx(0.15)
    half = 1.959964 * ((25 / 100 - 0.15**2) / 100) ** 0.5
    assert comparison.interval == pytest.approx((0.15 - half, 0.15 + half))
    assert compare(second, first).difference == -comparison.difference


def test_the_surest_contradictions_come_first_and_agreement_never():
    probabilities = np.array([[0.9, 0.1], [0.01, 0.99], [0.3, 0.7], [0.2, 0.8]])
    labels = np.array([0, 0, 0, 1], np.uint8)
    issues = find_label_issues(probabilities, labels, 10)
    assert [issue.index for issue in issues] == [1, 2]
    assert (issues[0].label, issues[0].predicted, issues[0].predicted_probability) == (0, 1, 0.99)
    assert [issue.index for issue in find_label_issues(probabilities, labels, 1)] == [1]
