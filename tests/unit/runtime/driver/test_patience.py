"""Waiting is as long as is wanted until everything has to end; then it adds up to less than what is left."""

from amago_ray.runtime.driver.patience import Patience


def test_all_waits_together_end_in_time() -> None:
    now_s = [0.0]
    patience = Patience(lambda: now_s[0])
    assert patience.s(3600.0) == 3600.0
    assert not patience.is_ending
    patience.end_within(12.0)
    assert patience.is_ending
    assert patience.s(1.0) == 1.0
    for _ in range(20):
        now_s[0] += patience.s(10.0, share=1 / 2)
    assert now_s[0] <= 12.0
    patience.end_within(100.0)
    now_s[0] = 13.0
    assert patience.s(10.0) == 0.0, "a later limit changes nothing"


def test_a_second_interrupt_ends_all_waiting() -> None:
    patience = Patience(lambda: 5.0)
    patience.end_within(12.0)
    patience.end_within(0.0)
    assert patience.s(10.0) == 0.0
