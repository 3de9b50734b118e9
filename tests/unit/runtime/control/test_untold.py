from amago_ray.runtime.control.untold import Untold


def test_the_newest_wait_and_the_others_are_counted() -> None:
    untold: Untold[int] = Untold(3)
    untold.extend(range(5))
    assert untold.take() == [2, 3, 4]
    assert untold.num_forgotten == 2
    assert untold.take() == []
    untold.extend([5])
    assert untold.take() == [5]
    assert untold.num_forgotten == 2
