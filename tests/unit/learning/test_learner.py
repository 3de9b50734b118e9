import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.batches import ACTIONS, make_batch, make_config, make_spec, select
from helpers.exact_update import exact_first_moments, first_moments
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64

from amago_ray.agent.draws import Draws
from amago_ray.agent.terms import EPSILON
from amago_ray.errors import ConfigError, TrainingError
from amago_ray.learning.batch import to_device_batch
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.learner import Learner

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")


def make_learner(action="discrete", *, seed=0, normalize_inputs=True, learner=None, **agent):
    config = make_config(normalize_inputs=normalize_inputs, learner=learner, **agent)
    return Learner(config, make_spec(action), device="cpu", seed=seed)


def tensors(state, prefix=""):
    for name, value in state.items():
        if isinstance(value, dict):
            yield from tensors(value, f"{prefix}{name}/")
        elif isinstance(value, torch.Tensor):
            yield f"{prefix}{name}", value


def differing(a, b):
    """Names of tensors in which two learner states differ."""
    a, b = dict(tensors(a)), dict(tensors(b))
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
@pytest.mark.parametrize("action", ACTIONS)
def test_repeated_updates_lower_the_critics_loss(kind, action):
    learner = make_learner(action, kind=kind, online_coefficient=0.0, offline_coefficient=1.0)
    batch = make_batch(make_spec(action), [6, 4, 8])
    learner.step(batch)
    first = learner.metrics()["loss/critic"]
    for _ in range(60):
        learner.step(batch)
    learner.metrics()
    learner.step(batch)
    assert learner.metrics()["loss/critic"] < 0.8 * first


def test_a_step_reports_what_it_trained_on():
    report = make_learner().step(make_batch(make_spec(), [6, 4], weight=[1.0, 0.0]))
    assert (report.learner_steps, report.num_sequences, report.num_tokens, report.num_transitions) == (1, 2, 12, 6.0)


def test_metrics_are_means_since_the_last_call_and_never_nan():
    learner = make_learner(learner={"metrics_interval": 3})
    assert learner.metrics() == {"loss/learning_rate": 1e-2, "loss/nonfinite_updates": 0.0}
    batch = make_batch(make_spec(), [6, 4])
    totals = []
    for _ in range(3):
        learner.step(batch)
        totals.append(learner.metrics())
    assert "loss/advantage_mean" in totals[0]
    assert "loss/advantage_mean" not in totals[1]
    again = make_learner(learner={"metrics_interval": 3})
    for _ in range(3):
        again.step(batch)
    found = again.metrics()
    assert_rounded(np.float32(found["loss/total"]), np.mean([each["loss/total"] for each in totals]), roundings=6)
    assert all(np.isfinite(value) for value in found.values())


def test_the_loss_of_a_batch_is_the_weighted_mean_of_its_sequences_alone():
    """Nothing crosses from one sequence into another, and nothing pads."""
    lengths = [6, 1, 9]
    spec = make_spec()
    batch = make_batch(spec, lengths)
    options = {"normalize_inputs": False, "popart": False, "num_critics": 1}
    learner, config = make_learner(**options), make_config(**options).agent
    agent = learner.agent.eval()
    weights = ([1.0, 1.0, 1.0], [1.0, 0.0, 2.0])

    def loss(agent, part):
        # Without the epsilon in the denominator, which counts for more in a sequence of one step.
        device_batch = to_device_batch(part, CPU)
        subset = torch.zeros(len(device_batch.transitions), 2, 3, dtype=torch.int64)
        count = device_batch.num_transitions
        given = learner.objective, config, device_batch, Draws(subset)
        evaluation = accumulate_gradients(agent, *given, num_transitions=count)
        return evaluation.losses[0].total.detach() * (1 + EPSILON / (3 * count))

    def averages(agent, batch):
        alone = torch.stack([loss(agent, select(batch, index)) for index in range(3)])
        shares = [torch.tensor(np.multiply(weight, lengths), dtype=alone.dtype) for weight in weights]
        return [(share * alone).sum() / share.sum() for share in shares]

    together = [loss(agent, replace(batch, weight=np.array(weight, np.float32))) for weight in weights]
    plain = averages(agent, batch)
    with float64():
        reference = averages(as_float64(agent), as_float64(batch))
    assert_as_exact_as(together, plain, reference=reference)


@pytest.mark.parametrize("action", ["discrete", "box"])
def test_dummy_sequences_stay_out_of_losses_and_statistics(action):
    """A sequence of weight 0 appended: the same gradients, statistics and weights afterwards."""
    spec = make_spec(action)
    real = make_batch(spec, [6, 4])
    padded = make_batch(spec, [6, 4, 5], weight=[1.0, 1.0, 0.0])
    tokens, moves = real.num_tokens, real.num_transitions
    for name in real.observations:
        padded.observations[name][:tokens] = real.observations[name]
        padded.observations[name][tokens:] = 1e3
    for name, rows in (("prev_action", tokens), ("prev_reward", tokens), ("action", moves), ("reward", moves)):
        getattr(padded, name)[:rows] = getattr(real, name)
    padded.terminated[:moves] = real.terminated
    learner, config = make_learner(action), make_config().agent
    settle_statistics(learner.agent)
    given = learner.agent, learner.objective, config, whole_draws(learner, config, 15)
    ours, plain = (gradients_and_statistics(*given, batch) for batch in (padded, real))
    with float64():
        reference = gradients_and_statistics(*as_float64((*given, real)))
    assert_as_exact_as(ours, plain, reference=reference)


def whole_draws(learner, config, num_transitions):
    return learner.objective.make_draws(config, num_transitions, torch.Generator().manual_seed(0))


def settle_statistics(agent):
    """As after many updates, where a step of the statistics is the same in float32 and in float64."""
    for name, buffer in agent.named_buffers():
        if name.endswith("num_updates"):
            buffer.fill_(1e6)


def gradients_and_statistics(agent, objective, config, draws, batch, **options):
    """What one evaluation of a copy of the agent leads to."""
    agent = copy.deepcopy(agent)
    device_batch = to_device_batch(batch, CPU)
    draws = draws.rows(0, len(device_batch.transitions))
    given = objective, config, device_batch, draws
    accumulate_gradients(agent, *given, num_transitions=device_batch.num_transitions, **options)
    gradients = {name: parameter.grad for name, parameter in agent.trained_parameters().items()}
    statistics = {name: buffer for name, buffer in agent.named_buffers() if "num_updates" not in name}
    return {**gradients, **{name: value / value.abs().max().clamp_min(1) for name, value in statistics.items()}}


def test_chunks_of_rows_lead_to_the_same_gradients():
    learner = make_learner("box", num_action_samples_in_policy_loss=2)
    config = make_config(num_action_samples_in_policy_loss=2).agent
    settle_statistics(learner.agent)
    draws, batch = whole_draws(learner, config, 17), make_batch(make_spec("box"), [6, 4, 7])
    given = learner.agent, learner.objective, config, draws, batch
    ours, plain = gradients_and_statistics(*given, rows_per_chunk=5), gradients_and_statistics(*given)
    with float64():
        reference = gradients_and_statistics(*as_float64(given))
    assert_as_exact_as(ours, plain, reference=reference)


def test_running_statistics_step_once_when_a_batch_is_split():
    """One update over two halves moves moments as one over the whole does: one step, by the moments of both."""
    spec = make_spec()
    batch = make_batch(spec, [6, 4])
    halves = [select(batch, 0), select(batch, 1)]
    whole, split = make_learner(), make_learner(learner={"batches_per_update": 2})
    whole.step(batch)
    assert split.step(halves[0]) is None
    assert split.learner_steps == 0
    report = split.step(halves[1])
    assert (report.learner_steps, report.num_sequences, report.num_transitions) == (1, 2, 10.0)
    a, b = whole.agent.state_dict(), split.agent.state_dict()
    assert torch.equal(b["popart.num_updates"], torch.full((3,), 2.0))
    assert torch.equal(b["timestep_encoder.input_norm.num_updates"], torch.full((1,), 2.0))
    largest = float(np.abs(batch.observations["observation"]).max())
    for name, magnitude in (("mean", largest), ("mean_square", largest**2)):
        where = f"timestep_encoder.input_norm.{name}"
        assert_rounded(b[where], a[where], roundings=2 * batch.num_tokens, magnitude=magnitude)
    popart = split.agent.popart
    std = (popart.mean_square.double() - popart.mean.double().square()).sqrt()
    assert_rounded(popart.scale, 10.0 / std, roundings=8)
    assert_rounded(popart.shift, -popart.mean / std, roundings=8)


def test_accumulation_without_running_statistics_equals_one_big_batch():
    spec = make_spec()
    batch = make_batch(spec, [6, 4, 9])
    options = {"normalize_inputs": False, "popart": False, "num_critics": 1}
    whole = make_learner(**options)
    split = make_learner(**options, learner={"batches_per_update": 3})
    reference = exact_first_moments(whole, make_config(**options), batch)
    plain = first_moments(whole, [batch])
    ours = first_moments(split, [select(batch, index) for index in range(3)])
    assert_as_exact_as(ours, plain, reference=reference)
    losses = [learner.metrics()["loss/total"] for learner in (split, whole)]
    assert_rounded(np.float32(losses[0]), losses[1], roundings=2 * batch.num_tokens)


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_a_nonfinite_update_changes_nothing_and_is_counted(where):
    learner = make_learner(learner={"max_consecutive_nonfinite_updates": 3})
    good = make_batch(make_spec(), [6, 4])
    bad = copy.deepcopy(good)
    (bad.reward if where == "reward" else bad.observations["observation"])[2] = np.nan
    learner.step(good)
    before = learner.state_dict()
    learner.metrics()
    learner.step(bad)
    assert differing(before, learner.state_dict()) == {"nonfinite"}
    assert learner.metrics() == {"loss/learning_rate": 1e-2, "loss/nonfinite_updates": 1.0}
    learner.step(bad)
    learner.step(good)
    assert differing(before, learner.state_dict())
    learner.step(bad)
    learner.step(bad)
    with pytest.raises(TrainingError, match="3 updates in a row"):
        learner.step(bad)


def test_updates_are_deterministic_in_the_seed():
    batches = [make_batch(make_spec(), [6, 4], seed=seed) for seed in range(3)]
    learners = [make_learner(seed=seed) for seed in (5, 5, 6)]
    for batch in batches:
        for learner in learners:
            learner.step(batch)
            # Others drawing from torch's default generator change nothing.
            torch.rand(7)
    assert not differing(learners[0].state_dict(), learners[1].state_dict())
    assert differing(learners[0].state_dict(), learners[2].state_dict())


def test_updates_leave_torch_s_default_generator_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    make_learner().step(make_batch(make_spec(), [6, 4]))
    assert torch.equal(torch.rand(4), expected)


def test_snapshots_are_versioned_copies():
    learner = Learner(make_config(), make_spec(), device="cpu", incarnation=2)
    learner.step(make_batch(make_spec(), [6, 4]))
    snapshot = learner.snapshot()
    assert snapshot.version == (2, 1)
    before = {name: array.copy() for name, array in snapshot.arrays.items()}
    learner.step(make_batch(make_spec(), [6, 4]))
    assert all(np.array_equal(array, before[name]) for name, array in snapshot.arrays.items())
    assert any(not np.array_equal(array, before[name]) for name, array in learner.snapshot().arrays.items())


def test_masks_and_bfloat16_train():
    spec = make_spec(has_action_mask=True)
    learner = Learner(make_config(learner={"precision": "bfloat16"}), spec, device="cpu")
    learner.step(make_batch(spec, [6, 4], action_mask=True))
    metrics = learner.metrics()
    assert metrics["loss/nonfinite_updates"] == 0
    assert all(value.dtype == torch.float32 for value in learner.agent.parameters())


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_each_update_of_a_schedule_is_that_of_its_weights_held_constant(kind):
    spec, batches = make_spec(), [make_batch(make_spec(), [6, 4], seed=seed) for seed in range(3)]
    schedule = {"online_coefficient_final": 0.0, "offline_coefficient_final": 1.0, "coefficient_anneal_steps": 2}
    scheduled = Learner(make_config(kind=kind, offline_coefficient=0.0, **schedule), spec, device="cpu")
    for step, weights in enumerate([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)]):
        online, offline = weights
        constant = Learner(
            make_config(kind=kind, online_coefficient=online, offline_coefficient=offline), spec, device="cpu"
        )
        constant.load_state_dict(scheduled.state_dict())
        for learner in (scheduled, constant):
            learner.step(batches[step])
        assert not differing(scheduled.state_dict(), constant.state_dict())


def test_a_sequence_beyond_the_learned_positions_is_one_line_and_no_update():
    config = make_config()
    model = replace(config.model.sequence_model, positions="learned", max_time_index=10)
    config = replace(config, model=replace(config.model, sequence_model=model))
    learner = Learner(config, make_spec(), device="cpu")
    assert learner.step(make_batch(make_spec(), [9, 4])) is not None
    with pytest.raises(ConfigError, match=r"^model\.sequence_model\.max_time_index: expected more than 10"):
        learner.step(make_batch(make_spec(), [10, 4]))
    assert learner.learner_steps == 1
    assert learner.step(make_batch(make_spec(), [9, 4])) is not None
