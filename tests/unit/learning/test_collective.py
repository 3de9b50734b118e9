"""Several learners, each with batches of its own, train as one learner with all of them."""

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec, sequences
from helpers.collectives import together
from helpers.exact_update import exact_first_moments, first_moments
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, float64
from torch import nn

from amago_ray.errors import TrainingError
from amago_ray.learning.agreement import agree
from amago_ray.learning.batch import Counts, to_device_batch
from amago_ray.learning.collective import Alone, sum_gradients
from amago_ray.learning.gradients import accumulate_gradients
from amago_ray.learning.learner import Learner
from amago_ray.learning.loss_metrics import loss_sums
from amago_ray.learning.running_statistics import RunningStatistics

pytestmark = pytest.mark.numeric

CPU = torch.device("cpu")
LENGTHS = [6, 1, 9, 4]
SHARES = {2: [(0, 1), (1, 4)], 3: [(0, 2), (2, 3), (3, 4)]}
"""Which sequences each of so many learners gets: unequal numbers of them, and of transitions."""
AGENTS = {
    "online": {},
    "without PopArt": {"popart": False},
    "cloning, filtered": {"online_coefficient": 0.0, "offline_coefficient": 1.0},
    "both, exponential filter": {"offline_coefficient": 0.5, "advantage_filter": "exponential"},
    "cloning alone": {"online_coefficient": 0.0, "offline_coefficient": 1.0, "advantage_filter": "none"},
    "three steps": {"n_step": 3, "num_critics": 3},
}


def differing(a, b):
    flat = lambda state: {f"{part}/{name}": t for part in state for name, t in state[part].items()}  # noqa: E731
    a, b = (flat({"agent": s["agent"], **s["optimizer"], "": {"nonfinite": s["nonfinite"]}}) for s in (a, b))
    assert a.keys() == b.keys()
    return {name for name in a if not torch.equal(a[name], b[name])}


def settled(agent):
    """As after many updates, where a step of the statistics is the same in float32 and in float64."""
    for name, buffer in agent.named_buffers():
        if name.endswith("num_updates"):
            buffer.fill_(1e6)
    return agent


def outcome(agent, losses):
    gradients = {name: p.grad for name, p in agent.trained_parameters().items() if p.grad is not None}
    statistics = {name: buffer for name, buffer in agent.named_buffers() if "num_updates" not in name}
    scaled = {name: value / value.abs().max().clamp_min(1) for name, value in statistics.items()}
    return {**gradients, **scaled, "losses": torch.stack(list(losses))}


def of_one(agent, objective, config, batch, draws):
    """Gradients, statistics and losses of one learner with the whole batch."""
    agent, device_batch = copy.deepcopy(agent), to_device_batch(batch, CPU, n_step=config.n_step)
    given = objective, config, device_batch, draws
    passed = accumulate_gradients(agent, *given, num_transitions=device_batch.num_transitions)
    return outcome(agent, loss_sums([passed]).values())


def of_several(size, agent, objective, config, batch, draws):
    """The same of several, each with its sequences and the draws of their transitions."""
    whole = Counts.of(batch)

    def train(collective):
        mine, (first, end) = copy.deepcopy(agent), SHARES[size][collective.rank]
        RunningStatistics(mine, collective)
        device_batch = to_device_batch(sequences(batch, first, end), CPU, n_step=config.n_step)
        start = sum(LENGTHS[:first])
        given = objective, config, device_batch, draws.rows(start, start + len(device_batch.transitions))
        passed = accumulate_gradients(mine, *given, num_transitions=whole.num_transitions, rows_per_chunk=5)
        parameters = list(mine.trained_parameters().values())
        return outcome(mine, sum_gradients(collective, parameters, list(loss_sums([passed]).values())))

    return together(size, train)


@pytest.mark.parametrize("settings", AGENTS)
@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_several_learners_equal_one_with_all_batches(kind, action, settings):
    """Gradients, moments of inputs and targets, losses; sequences of unequal lengths, one without weight."""
    config, spec = make_config(kind=kind, **AGENTS[settings]), make_spec(action)
    learner = Learner(config, spec, device="cpu")
    batch = make_batch(spec, LENGTHS, weight=[1.0, 1.0, 0.5, 0.0])
    draws = learner.objective.make_draws(config.agent, sum(LENGTHS), torch.Generator().manual_seed(0))
    given = settled(learner.agent), learner.objective, config.agent, batch, draws
    plain = of_one(*given)
    with float64():
        reference = of_one(*as_float64(given))
    for size in SHARES:
        members = of_several(size, *given)
        assert_as_exact_as(members[0], plain, reference=reference)
        for other in members[1:]:
            assert all(torch.equal(value, other[name]) for name, value in members[0].items())


def step_together(size, make, batches):
    """Learners, made by `make(collective)`, that each take their part of every batch."""

    one_after_the_other = threading.Lock()

    def train(collective):
        with one_after_the_other:
            # Weights are drawn from torch's default generator, which threads share.
            learner = make(collective)
        for batch in batches:
            part = sequences(batch, *SHARES[size][collective.rank])
            learner.step(part, agree(collective, part, is_over=False).counts)
        return learner

    return together(size, train)


@pytest.mark.parametrize("batches_per_update", [1, 2])
def test_an_update_of_several_is_that_of_one(batches_per_update):
    """From batches to AdamW's moments, clipping by the norm of all gradients included; accumulated or not."""
    spec = make_spec()
    options = {"normalize_inputs": False, "popart": False, "num_critics": 1}
    config = make_config(**options, learner={"batches_per_update": batches_per_update, "max_grad_norm": 0.1})
    whole = Learner(config, spec, device="cpu")
    batches = [make_batch(spec, LENGTHS, seed=seed) for seed in range(batches_per_update)]
    alone = make_batch(spec, LENGTHS * batches_per_update)
    for name in ("prev_action", "prev_reward", "action", "reward", "terminated"):
        getattr(alone, name)[:] = np.concatenate([getattr(batch, name) for batch in batches])
    alone.observations["observation"][:] = np.concatenate([batch.observations["observation"] for batch in batches])
    reference = exact_first_moments(whole, config, alone)
    plain = first_moments(whole, batches)
    members = step_together(2, lambda each: Learner(config, spec, device="cpu", collective=each), batches)
    assert_as_exact_as(members[0].state_dict()["optimizer"]["exp_avg"], plain, reference=reference)
    ours, theirs = members[0].metrics(), whole.metrics()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert_rounded(np.float32(value), theirs[name], roundings=8 * alone.num_tokens, magnitude=max(1, abs(value)))


def test_learners_stay_equal_bit_for_bit():
    """Over many updates with everything that moves: dropout, sampled actions, PopArt, input norm, sigma-reparam."""
    spec = make_spec("box")
    config = make_config(learner={"batches_per_update": 2, "warmup_steps": 3})
    model = replace(config.model.sequence_model, dropout=0.1)
    config = replace(config, model=replace(config.model, sequence_model=model))
    batches = [make_batch(spec, LENGTHS, seed=seed) for seed in range(12)]
    members = step_together(3, lambda each: Learner(config, spec, device="cpu", collective=each), batches)
    states = [learner.state_dict() for learner in members]
    assert [learner.learner_steps for learner in members] == [6, 6, 6]
    assert not differing(states[0], states[1])
    assert not differing(states[0], states[2])
    assert len({learner.fingerprint() for learner in members}) == 1


def test_moments_of_accumulated_batches_count_the_rows_of_all_learners_once():
    spec = make_spec()
    config = make_config(learner={"batches_per_update": 2})
    batches = [make_batch(spec, LENGTHS, seed=seed) for seed in range(2)]
    agent = step_together(2, lambda each: Learner(config, spec, device="cpu", collective=each), batches)[1].agent
    state = agent.state_dict()
    assert torch.equal(state["popart.num_updates"], torch.full((3,), 2.0))
    assert torch.equal(state["timestep_encoder.input_norm.num_updates"], torch.full((1,), 2.0))
    alone = Learner(config, spec, device="cpu")
    for batch in batches:
        alone.step(batch)
    expected = alone.agent.state_dict()
    largest = max(float(np.abs(batch.observations["observation"]).max()) for batch in batches)
    for name, magnitude in (("mean", largest), ("mean_square", largest**2)):
        where = f"timestep_encoder.input_norm.{name}"
        assert_rounded(state[where], expected[where], roundings=4 * batches[0].num_tokens, magnitude=magnitude)


def test_learners_draw_different_noise_and_the_first_draws_what_one_alone_does():
    class Lonely:
        size = 2

        def __init__(self, rank):
            self.rank = rank

        def sum_(self, tensor):
            pass

    spec, config = make_spec("box"), make_config(popart=False, normalize_inputs=False)
    batch = make_batch(spec, LENGTHS)
    learners = [Learner(config, spec, device="cpu", collective=each) for each in (Alone(), Lonely(0), Lonely(1))]
    for learner in learners:
        learner.step(batch, Counts.of(batch))
    states = [learner.state_dict() for learner in learners]
    assert not differing(states[0], states[1])
    assert differing(states[0], states[2])


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_what_is_not_finite_for_one_changes_nothing_for_all_and_is_counted(where):
    spec = make_spec()
    good, bad = make_batch(spec, LENGTHS), make_batch(spec, LENGTHS)
    (bad.reward if where == "reward" else bad.observations["observation"])[2] = np.nan
    make = lambda each: Learner(make_config(), spec, device="cpu", collective=each)  # noqa: E731
    before, after = step_together(2, make, [good]), step_together(2, make, [good, bad])
    for one, other in zip(before, after, strict=True):
        assert differing(one.state_dict(), other.state_dict()) == {"/nonfinite"}
        assert other.metrics()["loss/nonfinite_updates"] == 1.0


def test_parameters_that_no_loss_reached_stay_as_they_are():
    """As for one learner: no weight decay. Those reached for one learner are trained by all."""
    config = make_config(**AGENTS["cloning alone"])
    learner = Learner(config, make_spec(), device="cpu")
    before = {name: value.clone() for name, value in learner.agent.state_dict().items()}
    batches = [make_batch(make_spec(), LENGTHS)]
    trained = step_together(2, lambda each: Learner(config, make_spec(), device="cpu", collective=each), batches)[0]
    after = trained.agent.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith("critics."))

    def reach(collective):
        parameters = [nn.Parameter(torch.ones(2)) for _ in range(3)]
        parameters[0].grad = torch.full((2,), 1.0 + collective.rank)
        if collective.rank == 1:
            parameters[1].grad = torch.full((2,), 5.0)
        sums = sum_gradients(collective, parameters, [torch.tensor(2.0)])
        return [None if p.grad is None else p.grad.tolist() for p in parameters], float(sums[0])

    assert together(2, reach) == [([[3.0, 3.0], [5.0, 5.0], None], 4.0)] * 2


def test_statistics_of_parts_of_one_s_own_become_their_mean_over_all_tokens():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def average(collective):
        agent = Learner(make_config(), make_spec(), device="cpu").agent
        agent.timestep_encoder.own = Norm()
        statistics = RunningStatistics(agent, collective)
        statistics.save()
        agent.timestep_encoder.own.mean.fill_(1.0 + collective.rank)
        statistics.average(Counts((3.0, 1.0)[collective.rank], 1.0), Counts(4.0, 2.0))
        return agent.timestep_encoder.own.mean.tolist()

    assert together(2, average) == [[1.25, 1.25]] * 2


def test_an_update_takes_few_sums():
    """What all do next, moments of inputs, moments of targets, gradients; and every so often the metrics."""
    spec, config = make_spec(), make_config(learner={"metrics_interval": 2})
    batch = make_batch(spec, LENGTHS)

    def count(collective):
        learner, numbers = Learner(config, spec, device="cpu", collective=collective), []
        for _ in range(2):
            before = collective.num_sums
            learner.step(batch, agree(collective, batch, is_over=False).counts)
            numbers.append(collective.num_sums - before)
        return numbers

    assert together(2, count) == [[5, 4]] * 2


def test_learners_train_when_all_have_a_batch_and_stop_when_one_does():
    batch = make_batch(make_spec(), LENGTHS)
    found = {}
    for case, (ready, over) in {
        "all": ((1, 1), (0, 0)),
        "one": ((1, 0), (0, 0)),
        "none": ((0, 0), (0, 0)),
        "over": ((1, 1), (0, 1)),
    }.items():
        found[case] = together(
            2, lambda c, r=ready, o=over: agree(c, batch if r[c.rank] else None, is_over=bool(o[c.rank]))
        )
    counts = Counts.of(batch)
    assert found["all"] == [(Counts(2 * counts.num_tokens, 2 * counts.num_transitions), False)] * 2
    assert found["one"] == found["none"] == [(None, False)] * 2
    assert found["over"] == [(None, True)] * 2
    assert agree(Alone(), batch, is_over=False) == (counts, False)
    assert agree(Alone(), None, is_over=True) == (None, True)


def test_learners_that_drifted_apart_are_told():
    with pytest.raises(TrainingError, match="the learners hold different weights"):
        together(3, lambda c: agree(c, None, is_over=False, fingerprint=2**39 + c.rank))
    spec = make_spec()
    learners = [Learner(make_config(), spec, device="cpu") for _ in range(2)]
    assert learners[0].fingerprint() == learners[1].fingerprint()
    with torch.no_grad():
        next(learners[1].agent.parameters()).flatten()[0].add_(1e-7)
    assert learners[0].fingerprint() != learners[1].fingerprint()
