import pytest

from jaxsr import chunks


@pytest.mark.parametrize(
    ("count", "elapsed", "expected"),
    [
        (1, 0.001, 10),  # at most ten times as many
        (400, 1.0, 800),  # two seconds
        (2, 2.0, 8),  # eight iterations, in eight
        (1, 7.0, 4),  # those that thirty seconds hold
        (1, 31.0, 1),
        (1000, 0.001, 1024),
    ],
)
def test_a_chunk_is_of_two_seconds_or_of_eight_iterations_within_thirty(count, elapsed, expected):
    assert chunks.following(count, elapsed) == expected
