import pytest
import torch
from helpers.numeric import as_float64, assert_as_exact_as

from amago_ray.nets.mlp import Mlp

pytestmark = pytest.mark.numeric


def formula(mlp: Mlp, x: torch.Tensor) -> torch.Tensor:
    for name in ("layers.0", "layers.1"):
        layer = mlp.get_submodule(name)
        x = x @ layer.weight.T + layer.bias
        x = torch.where(x > 0, x, 0.01 * x)
    return x @ mlp.layers[2].weight.T + mlp.layers[2].bias


def test_hidden_layers_are_activated_and_the_last_is_linear() -> None:
    torch.manual_seed(0)
    mlp = Mlp(3, 5, 2, 4)
    x = torch.randn(6, 3)
    assert_as_exact_as(mlp(x), formula(mlp, x), reference=formula(*as_float64((mlp, x))))
    assert (mlp(x) < 0).any()
