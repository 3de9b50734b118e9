from dataclasses import replace

import numpy as np
from check_masks import count
from helpers.episodes import make_episode

from amago_ray.data.arrow_codec import encode_episodes


def test_forbidden_actions_are_found(tmp_path):
    mask = np.array([[1, 0, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]], np.bool_)
    actions = np.array([1, 1, 4])
    episode = replace(make_episode(3, num_goals=9, has_action_mask=True), actions=actions, action_mask=mask)
    shard = tmp_path / "replay" / "shard_0"
    shard.mkdir(parents=True)
    (shard / "segment_0.arrows").write_bytes(encode_episodes([episode, episode]))
    assert count(tmp_path) == {
        "episodes": 2,
        "steps": 6,
        "actions_forbidden": 16,
        "forbidden_actions_taken": 2,
        "forbidden_actions_expected_of_uniform_choice": 3,
    }
