import torch

from amago_ray.nets.mlp import Mlp


def test_hidden_layers_are_activated_and_the_last_is_linear() -> None:
    torch.manual_seed(0)
    mlp = Mlp(3, 5, 2, 4)
    x = torch.randn(6, 3)
    hidden = x
    for name in ("layers.0", "layers.1"):
        layer = mlp.get_submodule(name)
        hidden = hidden @ layer.weight.T + layer.bias
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
    expected = hidden @ mlp.layers[2].weight.T + mlp.layers[2].bias
    torch.testing.assert_close(mlp(x), expected)
    assert (mlp(x) < 0).any()
