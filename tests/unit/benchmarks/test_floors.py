import pytest
from measuring.floors import Ceilings, NetworkSize, acting_floor, update_floor
from measuring.works import relabeled_lengths

SIZE = NetworkSize(inputs=3, encoder_width=4, encoder_output=5, width=8, layers=2, num_actions=2, head_width=6)


def test_products_of_acting_are_counted_by_hand():
    encoder = 3 * 4 + 4 * 4 + 4 * 5
    layers = 2 * (3 + 1 + 4 + 4) * 8 * 8
    head = 8 * 6 + 6 * 6 + 6 * 2
    attention = 2 * 2 * 8 * 10
    assert SIZE.step_flops(10) == 2 * (encoder + 5 * 8 + layers + head + attention)


def test_products_of_an_update_are_counted_by_hand():
    trunk = SIZE.trunk_macs
    heads = 5 * (8 * 6 + 6 * 6 + 6 * 7 * 2)
    tokens, squares = 3 + 5, 3**2 + 5**2
    attention = 2 * 2 * 8 * squares
    assert SIZE.update_flops([2, 4]) == 2 * (3 * (trunk + heads) * tokens + heads * tokens + 3 * attention)


def test_padding_is_not_work():
    assert SIZE.update_flops([4, 1]) < SIZE.update_flops([4, 4])


def test_the_limit_of_an_update_is_its_work_over_the_rate():
    floor = update_floor(SIZE, [[9]], Ceilings(flops_per_s=SIZE.update_flops([9]) * 4, read_bytes_per_s=1.0))
    assert floor["limit"] == pytest.approx(250.0)


@pytest.mark.parametrize(("read_bytes_per_s", "bound"), [(1e3, "cache_alone"), (1e15, "products_alone")])
def test_acting_is_bound_by_the_scarcer_of_products_and_bytes(read_bytes_per_s, bound):
    floor = acting_floor(SIZE, 21, Ceilings(flops_per_s=1e9, read_bytes_per_s=read_bytes_per_s))
    assert floor["limit"] == pytest.approx(floor[bound])
    assert floor["limit"] == pytest.approx(min(floor["cache_alone"], floor["products_alone"]))


def test_an_episode_reads_half_a_full_cache_on_average():
    reads = [SIZE.cache_bytes(live) for live in range(1, 22)]
    assert acting_floor(SIZE, 21, Ceilings(1e9, 1e9))["read_kb"] == pytest.approx(sum(reads) / 21 / 1e3)


def test_relabeled_lengths_are_mostly_short_and_never_empty():
    lengths = relabeled_lengths(2000, 250)
    assert min(lengths) >= 1
    assert max(lengths) == 250
    assert 0.28 < sum(lengths) / (2000 * 250) < 0.36
    assert relabeled_lengths(24, 250) == relabeled_lengths(24, 250)
