import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_spec

from amago_ray.learning.batch import to_device_batch

CPU = torch.device("cpu")


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_are_copied_not_shared():
    batch = make_batch(make_spec(), [3, 2])
    columns = [*batch.observations.values(), batch.prev_action, batch.reward, batch.terminated, batch.action]
    for column in columns:
        column.setflags(write=False)
    kept = batch.reward.copy()
    device_batch = to_device_batch(batch, CPU)
    device_batch.transitions.reward.zero_()
    device_batch.tokens.observations["observation"].zero_()
    assert np.array_equal(batch.reward, kept)
    assert batch.observations["observation"].any()


def test_transitions_know_their_tokens_and_their_end():
    batch = make_batch(make_spec(has_action_mask=True), [3, 1, 2], action_mask=True)
    device_batch = to_device_batch(batch, CPU, n_step=3)
    rows = device_batch.layout.transition_rows
    assert rows.tolist() == [0, 1, 2, 4, 6, 7]
    assert device_batch.transitions.steps_left.tolist() == [3, 2, 1, 1, 2, 1]
    mask = torch.from_numpy(batch.action_mask)
    assert torch.equal(device_batch.transitions.action_mask, mask[rows])
    assert torch.equal(device_batch.transitions.next_action_mask, mask[rows + 1])


def test_weights_count_transitions():
    plain = to_device_batch(make_batch(make_spec(), [3, 2]), CPU)
    assert plain.transitions.weight is None
    assert plain.token_weight is None
    assert plain.num_transitions == 5
    weighted = to_device_batch(make_batch(make_spec(), [3, 2], weight=[0.5, 0.0]), CPU)
    assert weighted.transitions.weight.tolist() == [0.5, 0.5, 0.5, 0.0, 0.0]
    assert weighted.token_weight.tolist() == [0.5] * 4 + [0.0] * 3
    assert weighted.num_transitions == 1.5
