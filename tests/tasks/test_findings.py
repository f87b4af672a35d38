"""Findings of whole drawn studies: the sentences of the report's own section are counted."""

import pytest

from benchmarks import studies

STUDIES = 200


@pytest.mark.slow
def test_few_studies_find_something_where_nothing_differs():
    spreads = [studies.MEASURED / 100] * len(studies.ROWS)
    false, planted = studies.shares(STUDIES, spreads, seed=2)
    assert false * STUDIES <= 16
    assert planted <= false


@pytest.mark.slow
def test_most_studies_find_a_difference_of_ten_points():
    spreads = [studies.MEASURED / 100] * len(studies.ROWS)
    assert studies.shares(STUDIES, spreads, difference=0.1, seed=2)[1] * STUDIES >= 145


@pytest.mark.slow
def test_one_row_that_varies_five_times_as_much_gives_no_more_false_findings():
    quiet = studies.MEASURED / 200
    false, _ = studies.shares(STUDIES, [5 * quiet, *[quiet] * 6], seed=2)
    assert false * STUDIES <= 16
