from measuring.links import Link, UpdateSums

LINK = Link("ten bytes a second", bytes_per_s=10.0, latency_s=1.0)


def test_a_sum_over_one_costs_nothing_and_over_many_twice_its_bytes() -> None:
    assert LINK.sum_s(1, 100.0) == 0.0
    assert LINK.sum_s(2, 100.0) == 1.0 + 10.0
    assert LINK.sum_s(4, 100.0) == 1.0 + 15.0


def test_gains_are_what_the_sums_leave() -> None:
    sums = UpdateSums(device_bytes=(100.0, 0.0), host_s=2.0)
    assert sums.gain(1, 14.0, LINK) == 1.0
    assert sums.gain(2, 14.0, LINK) == 2 * 14.0 / (14.0 + 2.0 + 11.0 + 1.0)
    assert UpdateSums((), 0.0).gain(8, 14.0, LINK) == 8.0
