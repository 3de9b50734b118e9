"""What keeps numbers finite: float32 where it is needed, and an end with a way back when they are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec
from helpers.local_runs import tiny_config
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64, with_nudged_weights

import amago_ray
from amago_ray.agent.draws import Draws
from amago_ray.agent.make import build_actor_critic, make_objective
from amago_ray.agent.popart import INITIAL_MEAN_SQUARE, PopArt
from amago_ray.agent.weights import load_snapshot
from amago_ray.errors import TrainingError
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients


@pytest.mark.numeric
@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_under_bfloat16_statistics_targets_and_the_critics_softmax_are_float32(kind):
    torch.manual_seed(0)
    config, spec = make_config(kind=kind), make_spec()
    agent, objective = build_actor_critic(config, spec), make_objective(config.agent, spec.action)
    batch = to_device_batch(make_batch(spec, [6, 6]), torch.device("cpu"))
    heads = []
    agent.critics.register_forward_hook(lambda _module, _inputs, values: heads.append(values.dtype))

    rounded, evaluation = evaluate(agent, objective, config.agent, batch, torch.bfloat16)

    assert set(heads) == {torch.bfloat16}
    (terms,) = evaluation.losses
    tensors = [terms.total, terms.log_prob, terms.taken_values, terms.advantage, evaluation.states, evaluation.returns]
    tensors += [terms.critic_entries, *terms.policy_moments, *agent.buffers(), *agent.parameters()]
    assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}
    # Statistics are those of the targets, to the digits of float32.
    mean, mean_square = evaluation.returns.mean(0).double(), evaluation.returns.double().square().mean(0)
    step = agent.popart.mean.double() / mean
    assert_rounded(step.float(), step.mean(), roundings=32)
    assert_rounded(agent.popart.mean_square, (1 - step) * INITIAL_MEAN_SQUARE + step * mean_square, roundings=32)
    # What is rounded on the way counts about as much as what is rounded before: the weights.
    with float64():
        reference, _ = evaluate(*as_float64((agent, objective, config.agent, batch)))
    plain = [evaluate(with_nudged_weights(agent, seed), objective, config.agent, batch)[0] for seed in range(4)]
    for name, found in rounded.items():
        assert_as_exact_as(found.bfloat16(), *[each[name] for each in plain], reference=reference[name])


def evaluate(agent, objective, config, batch, precision=torch.float32):
    """The critics' losses and their targets, with the actions that they are about given."""
    agent.popart.load_state_dict(PopArt(3).state_dict())
    generator, num_rows = torch.Generator().manual_seed(0), len(batch.transitions)
    actions = torch.randint(4, (num_rows, 1, 3), generator=generator)
    draws = Draws(
        torch.randint(4, (num_rows, 2, 3), generator=generator),
        target_action=actions,
        policy_action=torch.zeros(num_rows, 1, 3, 4),
        value_action=actions,
    )
    agent.zero_grad()
    evaluation = accumulate_gradients(
        agent, objective, config, batch, draws, num_transitions=batch.num_transitions, precision=precision
    )
    (terms,) = evaluation.losses
    return {"returns": evaluation.returns, "critic_entries": terms.critic_entries.detach()}, evaluation


def test_a_run_that_cannot_go_on_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        # Targets overflow float32.
        agent={"auxiliary_discounts": [0.9], "reward_multiplier": 1e38, "popart": False},
        env={
            "id": "amago_ray/MazeRunner-v0",
            "kwargs": {"size": 7, "num_goals": 3, "episode_length": 30},
        },
        relabel={"kind": "instruction", "strategy": "all", "weighting": "uniform"},
        learner={"max_consecutive_nonfinite_updates": 4, "metrics_interval": 1, "batch_size": 8},
        checkpoint={"interval_learner_steps": 1, "keep": 2},
        evaluation={"num_episodes": 0},
    )

    with pytest.raises(TrainingError, match="4 updates in a row had a loss or gradient that is not finite") as error:
        amago_ray.train(config, local=True)

    message = str(error.value)
    path = Path(message.partition("the last good checkpoint is ")[2].partition(",")[0])
    assert "\n" not in message
    assert path.parent == tmp_path / "tiny" / "checkpoints"
    assert all(np.isfinite(array).all() for array in load_snapshot(path / "policy.safetensors").arrays.values())
    assert message in (tmp_path / "tiny" / "status.json").read_text()


def test_without_a_checkpoint_that_is_said(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path,
        agent={"auxiliary_discounts": [0.9], "reward_multiplier": 1e38, "popart": False},
        learner={"max_consecutive_nonfinite_updates": 1, "metrics_interval": 100, "batch_size": 8},
        relabel={"kind": "instruction", "strategy": "all", "weighting": "uniform"},
        evaluation={"num_episodes": 0},
    )
    with pytest.raises(TrainingError, match=r"not finite; there is no checkpoint yet$"):
        amago_ray.train(config, local=True)
