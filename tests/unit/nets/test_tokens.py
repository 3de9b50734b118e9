import pytest
import torch

from amago_ray.data.specs import ActionSpec, ObservationSpec
from amago_ray.nets.encoders.input_norm import InputNorm
from amago_ray.nets.tokens import MAX_FEATURE, TokenColumns, TokenFeatures

BOX = ObservationSpec("box", (2, 2), "int16")
DISCRETE = ObservationSpec("discrete", (), "int64", (3,))
MULTI = ObservationSpec("multi_discrete", (2,), "int64", (2, 3))


def columns(action: torch.Tensor, **observations: torch.Tensor) -> TokenColumns:
    return TokenColumns(observations, action, torch.tensor([7.0, 0.5]), torch.tensor([0, 4]))


def test_leaves_are_sorted_flattened_and_one_hot_then_reward_then_action() -> None:
    features = TokenFeatures({"b": DISCRETE, "c": MULTI, "a": BOX}, ActionSpec("discrete", (), (4,)))
    tokens = columns(
        torch.tensor([2, 3]),
        c=torch.tensor([[1, 0], [0, 2]]),
        a=torch.tensor([[[1, 2], [3, 4]], [[5, 6], [7, 8]]], dtype=torch.int16),
        b=torch.tensor([0, 2]),
    )
    assert features.num_features == 4 + 3 + 5 + 1 + 4
    assert features(tokens).tolist() == [
        [1, 2, 3, 4, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0],
        [5, 6, 7, 8, 0, 0, 1, 1, 0, 0, 0, 1, 0.5, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize(
    ("action", "spec", "expected"),
    [
        (torch.tensor([[1, 2], [0, 1]]), ActionSpec("multi_discrete", (2,), (2, 3)), [1, 0, 0, 1, 0]),
        (torch.ones(2, 3, dtype=torch.int8), ActionSpec("multi_binary", (3,)), [1, 1, 1]),
        (torch.full((2, 2, 1), 0.25), ActionSpec("box", (2, 1)), [0.25, 0.25]),
    ],
)
def test_first_token_reads_no_previous_action(action: torch.Tensor, spec: ActionSpec, expected: list[float]) -> None:
    features = TokenFeatures({}, spec)(columns(action))
    assert features[0].tolist() == [0] * (1 + spec.num_features)
    assert features[1].tolist() == [0.5, *expected]


def test_more_than_256_discrete_actions_do_not_wrap() -> None:
    features = TokenFeatures({}, ActionSpec("discrete", (), (300,)))(columns(torch.tensor([0, 299])))
    assert features[1].nonzero().flatten().tolist() == [0, 300]


def test_value_out_of_range_is_an_error_and_not_a_neighbours_feature() -> None:
    features = TokenFeatures({"b": DISCRETE}, ActionSpec("discrete", (), (4,)))
    with pytest.raises(RuntimeError, match="out of bounds"):
        features(columns(torch.tensor([0, 0]), b=torch.tensor([3, 0])))


@pytest.mark.parametrize(
    "leaf",
    [
        torch.tensor([[torch.inf, -torch.inf], [1e25, 3.4e38]]),
        torch.tensor([[1_700_000_000_000_000_000, -(2**62)], [2**62, 5]]),
        torch.tensor([[70_000.0, 3.0], [torch.inf, 0.0]], dtype=torch.float16),
    ],
    ids=["floats", "integers", "halves"],
)
def test_extreme_values_are_read_as_the_largest_that_can_be_normalised(leaf: torch.Tensor) -> None:
    spec = ObservationSpec("box", (2,), str(leaf.dtype).removeprefix("torch."))
    tokens = columns(torch.tensor([0, 0]), a=leaf)
    features = TokenFeatures({"a": spec}, ActionSpec("discrete", (), (2,)))(tokens)
    assert torch.equal(features[:, :2], leaf.double().clamp(-MAX_FEATURE, MAX_FEATURE).float())
    norm = InputNorm(features.shape[1]).train()
    many = features.repeat(4000, 1)
    for _ in range(3):
        assert norm(many).isfinite().all()
