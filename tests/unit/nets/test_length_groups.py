import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from amago_ray.nets.length_groups import group_by_length


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sampled_from([0.0, 100.0, 1e9]))
def test_every_token_has_its_own_row_inside_its_group(lengths: list[int], cost: float) -> None:
    groups = group_by_length(lengths, cost)
    assert sum(count for count, _ in groups.shapes) == len(lengths)
    assert len(set(groups.padded_rows.tolist())) == sum(lengths)
    assert groups.padded_rows.max() < groups.num_padded_rows
    starts = np.cumsum(lengths) - lengths
    first_rows = groups.padded_rows[starts]
    for start, first, length in zip(starts, first_rows, lengths, strict=True):
        assert (groups.padded_rows[start : start + length] == first + np.arange(length)).all()
    # A sequence starts at a multiple of its group's padded length and fits into it.
    begin = 0
    for count, padded in groups.shapes:
        inside = (first_rows >= begin) & (first_rows < begin + count * padded)
        assert inside.sum() == count
        assert ((first_rows[inside] - begin) % padded == 0).all()
        assert (np.asarray(lengths)[inside] <= padded).all()
        begin += count * padded


def test_free_calls_pad_nothing_and_dear_calls_make_one_group() -> None:
    assert group_by_length([5, 3, 5, 9], 0.0).num_padded_rows == 22
    assert group_by_length([5, 3, 5, 9], 1e9).shapes == ((4, 9),)


def test_grouping_is_the_cheapest_of_all_cuts() -> None:
    lengths, cost = [2, 30, 28, 3, 11, 12, 60], 300.0

    def price(shapes: list[tuple[int, int]]) -> float:
        return sum(count * padded**2 + cost for count, padded in shapes)

    ascending = sorted(lengths)
    cheapest = min(
        price([(b - a, ascending[b - 1]) for a, b in itertools.pairwise([0, *cuts, len(lengths)])])
        for n in range(len(lengths))
        for cuts in itertools.combinations(range(1, len(lengths)), n)
    )
    assert price(list(group_by_length(lengths, cost).shapes)) == cheapest
