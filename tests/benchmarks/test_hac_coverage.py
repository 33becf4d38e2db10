"""A simulated effect lies within its HAC interval in 95 ± 2 % of 1,000 series; within the plain one not."""

import pytest

from tests.simulated_series import coverage


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_hac_intervals_cover_and_plain_ones_do_not() -> None:
    found = coverage(1_000)
    print(f"\n95 % intervals that hold the effect: HAC {found.hac:.1%}, plain OLS {found.plain:.1%}")
    assert 0.93 <= found.hac <= 0.97
    assert found.plain < 0.93
