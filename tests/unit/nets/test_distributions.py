import math

import pytest
import torch
from helpers.batches import ACTIONS
from helpers.numeric import as_float64, assert_as_exact_as, assert_rounded, assert_share
from hypothesis import given, settings
from hypothesis import strategies as st

from amago_ray.config.agent import ActorCriticConfig
from amago_ray.data.specs import ActionSpec
from amago_ray.nets.distributions import inverse_cdf, make_distribution, softmax

pytestmark = pytest.mark.numeric

LOW, HIGH = 0.001, 0.99


def make(spec):
    return make_distribution(spec, ActorCriticConfig())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", ACTIONS)
@pytest.mark.parametrize("greedy", [True, False])
def test_acts_in_storage_form(kind, greedy):
    spec = ACTIONS[kind]
    family = make(spec)
    actions = family.act(torch.randn(7, family.num_params), generator=None if greedy else generator())
    assert actions.shape == (7, *spec.shape)
    assert str(actions.dtype) == f"torch.{spec.dtype}"


@pytest.mark.parametrize("num_actions", [1, 5, 15, 16, 40])
def test_few_and_many_probabilities_are_those_of_a_softmax(num_actions):
    logits = torch.randn(6, 3, num_actions, requires_grad=True)
    with torch.no_grad():
        logits[0, 0, 1:] = -torch.inf  # what a mask forbids
    above = torch.randn_like(logits)
    exact = logits.detach().double().requires_grad_()
    results = []
    for function, x in ((softmax, logits), (torch.nn.Softmax(-1), logits), (torch.nn.Softmax(-1), exact)):
        probs = function(x)
        (gradient,) = torch.autograd.grad(probs, x, above.to(x.dtype))
        results.append({"probs": probs, "gradient": gradient})
    assert results[0]["probs"].is_contiguous()
    assert_as_exact_as(*results[:2], reference=results[2])


def test_boxes_keep_their_shape():
    family = make(ActionSpec("box", (2, 3)))
    actions = family.act(torch.randn(5, 12), generator=generator())
    assert actions.shape == (5, 2, 3)
    assert actions.abs().max() <= 1
    assert family.encode(actions).shape == (5, 6)
    assert family.log_prob(family.moments(torch.randn(5, 12)), actions).shape == (5,)


def test_more_than_256_discrete_actions():
    family = make(ActionSpec("discrete", (), (300,)))
    params = torch.full((1, 300), -9.0)
    params[0, 299] = 9.0
    assert family.act(params).item() == 299
    assert family.encode(torch.tensor([299])).argmax().item() == 299


@settings(max_examples=60)
@given(st.data())
def test_a_masked_action_is_never_taken_nor_given_probability(data):
    kind = data.draw(st.sampled_from(["discrete", "multi_discrete"]))
    spec = ACTIONS[kind] if kind == "multi_discrete" else ActionSpec("discrete", (), (5,))
    sizes = spec.num_categories
    masks = [
        data.draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any), label="mask") for size in sizes
    ]
    mask = torch.tensor([entry for part in masks for entry in part])
    family = make(spec)
    seed = data.draw(st.integers(0, 2**20))
    params = 30 * torch.randn(64, family.num_params, generator=generator(seed))
    rows = mask.expand(64, -1)

    (probs,) = family.moments(params, rows)
    assert (probs[~rows] == 0).all()
    assert_rounded(probs.sum(-1), float(len(sizes)), roundings=2 * sum(sizes))
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    for greedy in (True, False):
        actions = family.act(params, mask=rows, generator=None if greedy else generator(seed)).reshape(64, -1)
        for i, start in enumerate(starts):
            assert mask[start + actions[:, i]].all()
    noise = family.draw_noise((64,), generator(seed), reparametrized=False)
    assert (family.sample((probs,), noise)[~rows] == 0).all()
    gumbel = family.draw_noise((64,), generator(seed), reparametrized=True)
    assert (family.rsample((probs,), gumbel)[~rows] == 0).all()


def test_softened_actions_give_masked_ones_nothing():
    family = make(ACTIONS["discrete"])
    mask = torch.tensor([[True, False, True, True]])
    encoded = family.encode(torch.tensor([2]), mask)
    assert encoded[0, 1] == 0
    assert_rounded(encoded, torch.tensor([[LOW, 0, HIGH, LOW]]) / (HIGH + 2 * LOW), roundings=4)


def test_a_row_that_allows_nothing_is_no_nan():
    family = make(ACTIONS["discrete"])
    (probs,) = family.moments(torch.randn(1, 4), torch.zeros(1, 4, dtype=torch.bool))
    assert torch.isfinite(probs).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_rounding_never_draws_probability_zero(uniform):
    probs = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0]])
    index = inverse_cdf(probs, torch.tensor([uniform], dtype=torch.float32).clamp_max(1 - 2**-24))
    assert probs[0, index] > 0


def test_samples_follow_the_probabilities():
    family = make(ACTIONS["discrete"])
    params = torch.tensor([0.0, 1.0, 2.0, -1.0])
    actions = family.act(params.expand(20_000, 4), generator=generator())
    counts = torch.bincount(actions, minlength=4)
    for count, probability in zip(counts.tolist(), family.moments(params[None])[0][0].tolist(), strict=True):
        assert_share(count / 20_000, probability, 20_000)


def test_discrete_probabilities_are_clamped_then_renormalised():
    family = make(ACTIONS["discrete"])
    params = torch.tensor([[20.0, 0.0, 0.0, 0.0]], requires_grad=True)
    (probs,) = family.moments(params)
    expected = torch.tensor([[HIGH, LOW, LOW, LOW]]) / (HIGH + 3 * LOW)
    assert_rounded(probs, expected, roundings=4)
    family.log_prob((probs,), torch.tensor([0])).sum().backward()
    assert params.grad.abs().max() == 0


def test_multi_discrete_log_prob_is_the_sum_of_its_parts():
    family = make(ACTIONS["multi_discrete"])
    params = torch.randn(6, 5)
    moments = family.moments(params)
    action = torch.tensor([[2, 1]]).expand(6, 2)
    plain, reference = (probs[:, 2].log() + probs[:, 4].log() for probs in (moments[0], moments[0].double()))
    assert_as_exact_as(family.log_prob(moments, action), plain, reference=reference)


def test_multi_binary_is_greedy_above_one_half():
    family = make(ACTIONS["multi_binary"])
    actions = family.act(torch.tensor([[-0.1, 0.1, 3.0]]))
    assert actions.tolist() == [[0, 1, 1]]
    moments = family.moments(torch.zeros(1, 3))
    assert_rounded(family.log_prob(moments, actions), math.log(0.5), roundings=6)


def test_multi_binary_samples_pass_a_gradient_to_the_probabilities():
    family = make(ACTIONS["multi_binary"])
    params = torch.zeros(1, 3, requires_grad=True)
    noise = torch.tensor([[True, False, True]])
    bits = family.rsample(family.moments(params), noise)
    assert bits.tolist() == [[1.0, 0.0, 1.0]]
    bits.sum().backward()
    assert torch.equal(params.grad, torch.full((1, 3), 0.25))


def squashed_gaussian(moments, action):
    tanh = torch.distributions.TanhTransform(cache_size=1)
    return (
        torch.distributions.TransformedDistribution(torch.distributions.Normal(*moments), [tanh])
        .log_prob(action)
        .sum(-1)
    )


def test_box_log_prob_is_that_of_a_squashed_gaussian():
    family = make(ACTIONS["box"])
    params = torch.randn(8, 4)
    moments = family.moments(params)
    given = moments, torch.rand(8, 2) * 1.8 - 0.9
    reference = squashed_gaussian(*as_float64(given))
    assert_as_exact_as(family.log_prob(*given), squashed_gaussian(*given), reference=reference)


def test_box_deviation_stays_in_range():
    _, std = make(ACTIONS["box"]).moments(torch.tensor([[0.0, 0.0, -100.0, 100.0]]))
    # The exponent is off by as much as the numbers that it is the sum of, up to 7.
    for found, exact in zip(std[0], (math.exp(-5), math.exp(2)), strict=True):
        assert_rounded(found, exact, roundings=16)


def test_given_outcomes_are_taken_as_they_are():
    discrete = make(ACTIONS["discrete"])
    moments = discrete.moments(torch.randn(3, 4))
    assert discrete.sample(moments, torch.tensor([3, 0, 1])).argmax(-1).tolist() == [3, 0, 1]
    binary = make(ACTIONS["multi_binary"])
    bits = torch.tensor([[True, False, True]])
    assert binary.sample(binary.moments(torch.randn(1, 3)), bits).tolist() == [[1.0, 0.0, 1.0]]


def test_straight_through_samples_are_one_hot_with_a_gradient():
    family = make(ACTIONS["discrete"])
    params = torch.randn(5, 4, requires_grad=True)
    noise = family.draw_noise((5,), generator(), reparametrized=True)
    sample = family.rsample(family.moments(params), noise)
    assert_rounded(sample, torch.nn.functional.one_hot(sample.argmax(-1), 4), roundings=2)
    (sample * torch.randn(5, 4)).sum().backward()
    assert params.grad.abs().max() > 0
