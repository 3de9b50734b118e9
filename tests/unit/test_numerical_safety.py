"""What keeps numbers finite: float32 where it is needed, and an end with a way back when they are not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec
from helpers.local_runs import tiny_config

import amago_ray
from amago_ray.agent.weights import load_snapshot
from amago_ray.errors import TrainingError
from amago_ray.learning.learner import Learner


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_under_bfloat16_statistics_targets_and_the_critics_softmax_are_float32(kind, monkeypatch):
    # Equal lengths, so that both precisions train on the same rows.
    spec, batch = make_spec(), make_batch(make_spec(), [6, 6])
    found = {}
    for precision in ("float32", "bfloat16"):
        learner = Learner(make_config(kind=kind, learner={"precision": precision}), spec, device="cpu")
        kept = []
        original = Learner._evaluate
        monkeypatch.setattr(Learner, "_evaluate", lambda *args, o=original, k=kept: k.extend(o(*args)) or k)
        heads = []
        learner.agent.critics.register_forward_hook(lambda _m, _i, y, h=heads: h.append(y.dtype))
        learner.step(batch)
        monkeypatch.undo()
        (evaluation,) = kept
        (terms,) = evaluation.losses
        assert set(heads) == {torch.bfloat16 if precision == "bfloat16" else torch.float32}
        found[precision] = (terms.critic_entries.detach(), evaluation.returns, learner.agent.popart.mean.clone())
        tensors = [terms.total, terms.log_prob, terms.taken_values, terms.advantage, evaluation.states]
        tensors += [*terms.policy_moments, *found[precision], *learner.agent.buffers(), *learner.agent.parameters()]
        assert {tensor.dtype for tensor in tensors} <= {torch.float32, torch.int64}
        # Statistics are those of the targets, to the digits of float32.
        step = 5e-4 / (1 - (1 - 5e-4) ** 2)
        torch.testing.assert_close(learner.agent.popart.mean, step * evaluation.returns.mean(0), rtol=2e-4, atol=0)
    for exact, rounded in zip(found["float32"], found["bfloat16"], strict=True):
        torch.testing.assert_close(rounded, exact, rtol=0.1, atol=0.1 * float(exact.abs().max()))


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
