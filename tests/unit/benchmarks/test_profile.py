import pytest
from profile_acting import shares

LOOP = "play_episodes (bench_acting.py);step (amago_ray/acting/env_runner.py)"


def test_samples_count_where_their_stack_has_been():
    stacks = [
        f"{LOOP};step (amago_ray/acting/policy.py);step (amago_ray/acting/network.py);linear (torch/f.py) 70",
        f"{LOOP};step (amago_ray/acting/policy.py);act (amago_ray/nets/distributions.py) 10",
        f"{LOOP};step (amago_ray/envs/maze_runner.py) 8",
        f"{LOOP};append (amago_ray/acting/columns.py) 7",
        "play_episodes (bench_acting.py);encode_episodes (amago_ray/data/arrow_codec.py) 5",
        "main (profile_acting.py);poll (subprocess.py) 1000",
    ]
    assert shares(stacks) == pytest.approx(
        {"policy mathematics": 0.8, "environment": 0.08, "glue": 0.07, "replay": 0.05}
    )


def test_nothing_seen_is_no_shares():
    assert shares([]) == {}
