import torch

from amago_ray.learning.metric_sums import MetricSums


def test_means_since_the_last_drain_without_what_does_not_count():
    sums = MetricSums()
    assert sums.drain() == {}
    for value, counts in ((1.0, 1.0), (3.0, 1.0), (float("nan"), 0.0)):
        sums.add({"a": torch.tensor(value), "b": torch.tensor(2 * value)}, torch.tensor(counts))
    assert sums.drain() == {"a": 2.0, "b": 4.0}
    assert sums.drain() == {}
    sums.add({"a": torch.tensor(float("nan"))}, torch.tensor(0.0))
    assert sums.drain() == {}
