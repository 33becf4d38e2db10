"""The index that a bot keeps for itself."""

import pytest

from tests.serving import full_signal, now
from worker.aggregates.contribution import contribution
from worker.clients.bots.rolling import RollingIndex


def test_it_is_the_weighted_mean_of_what_lies_in_the_window() -> None:
    index = RollingIndex(60, least=2)
    index.add(100, 0.5, 1.0)
    assert index.at(100) is None
    index.add(130, 0.25, -0.5)
    assert index.at(159.9) == pytest.approx((0.5 - 0.125) / 0.75)
    assert index.at(160) is None  # the first has left
    index.add(161, 0.0, 1.0)
    assert index.at(161) == -0.5
    assert index.at(190) is None  # only weightless ones


def test_it_agrees_with_the_aggregates() -> None:
    part = contribution(full_signal(1, now(), certainty=0.4, relevance=0.7), 0.4)
    index = RollingIndex(60)
    index.add(100, 0.4 * 0.7, 0.5)
    assert index.at(100) == pytest.approx(part.weighted_polarity / 2 / part.weight)
