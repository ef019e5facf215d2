import numpy as np
import pytest

from faceswap.tracking.smoothing import local_line, smooth_over_time


def smooth(tracks, reach=4):
    """Smooth frames that are given as {track: number}."""
    items = [
        {track: np.array([float(value)]) for track, value in frame.items()} for frame in tracks
    ]
    found = smooth_over_time(items, lambda item: item, lambda _, smoothed: smoothed, reach)
    return [{track: value.item() for track, value in frame.items()} for frame in found]


def test_steady_motion_has_no_lag_even_at_the_ends():
    found = smooth([{0: 3 * i + 2} for i in range(20)])

    np.testing.assert_allclose([f[0] for f in found], [3 * i + 2 for i in range(20)], atol=1e-9)


def test_smoothing_reduces_jitter():
    noise = np.random.default_rng(0).normal(0, 1, 200)

    found = np.array([f[0] for f in smooth([{0: value} for value in noise])])

    assert np.abs(np.diff(found, 2)).mean() < 0.25 * np.abs(np.diff(noise, 2)).mean()


def test_values_do_not_cross_a_gap_or_mix_tracks():
    found = smooth([{0: 0}, {0: 0}, {}, {0: 100}, {0: 100}, {1: 7}])

    expected = [{0: 0}, {0: 0}, {}, {0: 100}, {0: 100}, {1: 7}]
    assert [pytest.approx(frame) for frame in expected] == found


@pytest.mark.parametrize("count", [0, 1, 3, 9, 10, 30])
def test_every_item_is_yielded_once_and_in_order(count):
    found = list(smooth_over_time(range(count), lambda _: {}, lambda item, _: item, reach=4))

    assert found == list(range(count))


def test_no_more_items_than_the_reach_are_read_ahead():
    asked = 0

    def items():
        nonlocal asked
        for number in range(100):
            asked += 1
            yield number

    found = smooth_over_time(items(), lambda _: {}, lambda item, _: item, reach=4)
    ahead = []
    for number in found:
        ahead.append(asked - number)
    assert max(ahead) == 5


def test_single_value_is_unchanged():
    np.testing.assert_array_equal(local_line(np.zeros(1), np.array([[5.0, 6.0]]), 4), [5, 6])
