import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec, select
from helpers.exact_update import exact_first_moments, first_moments
from helpers.numeric import assert_as_exact_as, assert_rounded

from amago_ray.learning.learner import Learner
from amago_ray.learning.static_shapes import compiles_for_each_size, fill_up


@pytest.mark.parametrize("action", ["discrete", "multi_discrete", "multi_binary", "box"])
def test_what_was_there_stays_and_the_dummy_has_no_weight(action):
    batch = make_batch(make_spec(action), [6, 1, 9])
    filled = fill_up(batch)
    for index in range(3):
        before, after = select(batch, index), select(filled, index)
        assert np.array_equal(before.observations["observation"], after.observations["observation"])
        for column in ("prev_action", "prev_reward", "time_index", "action", "reward", "terminated", "weight"):
            assert np.array_equal(getattr(before, column), getattr(after, column)), column
            assert getattr(before, column).dtype == getattr(after, column).dtype, column
    assert filled.weight.tolist() == [1, 1, 1, 0]
    assert len(filled.action) == len(filled.terminated) == filled.num_transitions
    assert len(filled.prev_action) == len(filled.observations["observation"]) == filled.num_tokens
    assert filled.max_seqlen == max(np.diff(filled.cu_seqlens))


def test_a_dummy_may_do_anything():
    batch = make_batch(make_spec(has_action_mask=True), [6, 4], action_mask=True)
    filled = fill_up(batch)
    assert filled.action_mask[: batch.num_tokens].tolist() == batch.action_mask.tolist()
    assert filled.action_mask[batch.num_tokens :].all()


@pytest.mark.parametrize(("smallest", "largest", "num_sizes"), [(5, 15, 1), (512, 1023, 6), (4096, 8191, 6)])
def test_sizes_are_few_and_little_is_added(smallest, largest, num_sizes):
    spec, sizes, added = make_spec(), set(), []
    for num_tokens in range(smallest, largest + 1):
        filled = fill_up(make_batch(spec, [1, num_tokens - 3]))
        sizes.add((filled.num_tokens, filled.num_transitions, filled.num_sequences))
        added.append(filled.num_tokens / num_tokens - 1)
    assert len(sizes) <= num_sizes
    if smallest >= 512:
        assert max(added) < 0.16
        assert np.mean(added) < 0.08


@pytest.mark.parametrize("layer", [torch.nn.Linear(2, 2), torch.nn.Conv2d(1, 1, 1)])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_compiles_for_each_size(layer, device, dtype):
    expected = device == "cpu" and (dtype == torch.bfloat16 or isinstance(layer, torch.nn.Conv2d))
    network = torch.nn.Sequential(layer)
    assert compiles_for_each_size(network, torch.device(device), dtype) == expected


def test_equal_lengths_stay_as_they_are_but_not_a_sequence_alone():
    batch = make_batch(make_spec(), [7, 7, 7])
    assert fill_up(batch) is batch
    assert fill_up(make_batch(make_spec(), [7])).num_sequences == 2


def test_a_learner_in_bfloat16_meets_few_sizes_and_reports_what_it_was_given(monkeypatch):
    spec, sizes = make_spec(), set()
    learner = Learner(make_config(learner={"precision": "bfloat16"}), spec, device="cpu")
    states = learner.agent.states

    def watched(tokens, layout, weight=None):
        sizes.add(layout.num_tokens)
        return states(tokens, layout, weight)

    monkeypatch.setattr(learner.agent, "states", watched)
    reports = [learner.step(make_batch(spec, [5, length])) for length in range(1, 5)]
    assert sizes == {16}
    assert [report.num_tokens for report in reports] == [8, 9, 10, 11]
    assert [report.num_sequences for report in reports] == [2] * 4


@pytest.mark.numeric
def test_a_filled_batch_trains_alike():
    # One critic: which critics are drawn for a transition depends on the number of transitions.
    config, spec = make_config(num_critics=1, normalize_inputs=False, popart=False), make_spec()
    batch = make_batch(spec, [6, 4])
    filled, plain = Learner(config, spec, device="cpu"), Learner(config, spec, device="cpu")
    reference = exact_first_moments(plain, config, batch)
    assert_as_exact_as(first_moments(filled, [fill_up(batch)]), first_moments(plain, [batch]), reference=reference)
    losses = [learner.metrics()["loss/total"] for learner in (filled, plain)]
    assert_rounded(np.float32(losses[0]), losses[1], roundings=2 * batch.num_tokens)
