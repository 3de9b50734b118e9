import pytest
import torch

from amago_ray.config.learner import LearnerConfig
from amago_ray.learning.precision import multiplies_bfloat16, network_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    assert LearnerConfig().precision == "auto"
    assert multiplies_bfloat16(CPU) == native
    assert network_dtype("auto", CPU) == (torch.bfloat16 if native else torch.float32)
    assert network_dtype("float32", CPU) == torch.float32
    assert network_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("capability", "native"), [((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_gpus_multiply_it_since_ampere(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], native: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_bfloat16(torch.device("cuda")) == native


def test_other_devices_run_in_float32() -> None:
    assert network_dtype("auto", torch.device("meta")) == torch.float32
