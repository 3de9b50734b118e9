from typing import Any

import pytest
import torch
from helpers.model_configs import encoder_config
from helpers.small_encoders import BOX, IMAGE, SMALL, spec, tokens
from torch import Tensor

from amago_ray.config.model import CustomEncoderConfig
from amago_ray.data.specs import EnvSpec
from amago_ray.errors import ConfigError
from amago_ray.nets.contracts import TimestepEncoder
from amago_ray.nets.encoders.cnn import CnnTimestepEncoder
from amago_ray.nets.encoders.make import build_timestep_encoder
from amago_ray.nets.encoders.mlp import MlpTimestepEncoder
from amago_ray.nets.tokens import TokenColumns

pytestmark = pytest.mark.numeric


def test_auto_takes_the_cnn_where_a_selected_leaf_is_an_image() -> None:
    both = spec(camera=IMAGE, state=BOX)
    assert isinstance(build_timestep_encoder(encoder_config(**SMALL), both), CnnTimestepEncoder)
    only_state = encoder_config(**SMALL, observation_keys=("state",))
    assert isinstance(build_timestep_encoder(only_state, both), MlpTimestepEncoder)


def test_selected_leaves_alone_are_read() -> None:
    torch.manual_seed(0)
    encoder = build_timestep_encoder(encoder_config(**SMALL, observation_keys=("b",)), spec(a=BOX, b=BOX)).eval()
    b = torch.randn(5, 3)
    assert torch.equal(encoder(tokens(a=torch.randn(5, 3), b=b)), encoder(tokens(a=torch.randn(5, 3), b=b)))


class EveryThird(TimestepEncoder):
    def __init__(self, config: CustomEncoderConfig, spec: EnvSpec) -> None:
        super().__init__()
        self.output_dim = config.output_dim

    def forward(self, tokens: TokenColumns, weight: Tensor | None = None) -> Tensor:
        return tokens.observations["a"][:, :1].expand(-1, self.output_dim)


def test_custom_encoder_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("my_encoders")
    module.EveryThird = EveryThird  # type: ignore[attr-defined]
    module.number = lambda config, spec: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_encoders", module)
    config = encoder_config(**SMALL, kind="my_encoders:EveryThird")
    assert isinstance(build_timestep_encoder(config, spec(a=BOX)), EveryThird)
    with pytest.raises(ConfigError, match=r"expected .* to make a TimestepEncoder .* got int"):
        build_timestep_encoder(encoder_config(**SMALL, kind="my_encoders:number"), spec(a=BOX))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "no.such.module:Encoder"}, 'cannot import "no.such.module"'),
        ({"kind": "math:Encoder"}, 'expected "module:attr", got "math:Encoder"'),
        ({"kind": "cnn"}, r"expects an image .* got a float32\[3\]"),
        ({"observation_keys": ("a", "z")}, 'expected keys among a, got "z"'),
    ],
)
def test_bad_settings_get_one_line(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        build_timestep_encoder(encoder_config(**{**SMALL, **config}), spec(a=BOX))
    assert "\n" not in str(error.value)
