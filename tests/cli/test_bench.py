import pytest

from pbft.cli.bench import percentile


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, 0.0),
        ([3.0], 50, 3.0),
        ([1.0, 2.0], 50, 1.0),
        ([1.0, 2.0, 3.0], 50, 2.0),
        ([float(i) for i in range(1, 101)], 99, 99.0),
        ([float(i) for i in range(1, 101)], 90, 90.0),
        ([1.0, 2.0, 9.0], 100, 9.0),
        ([1.0, 2.0, 9.0], 99, 9.0),
    ],
)
def test_percentiles_are_by_nearest_rank(
    values: list[float], percent: int, expected: float
) -> None:
    assert percentile(values, percent) == expected
