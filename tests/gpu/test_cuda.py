"""What only a CUDA GPU shows: `python -m pytest tests/gpu` there; everywhere else one reason says why it is skipped."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.batches import make_batch, make_config, make_spec
from helpers.model_configs import sequence_config
from helpers.numeric import assert_as_exact_as, nudged, with_nudged_weights
from helpers.parity_case import ParityCase
from helpers.parity_inference import check_inference
from helpers.parity_replay import Replay
from helpers.parity_training import check_full_forward, check_several_steps, check_training_step

from amago_ray.acting.network import ActingNetwork
from amago_ray.acting.policy import Policy
from amago_ray.agent.weights import to_arrays
from amago_ray.data.episode import PolicyVersion
from amago_ray.data.snapshot import Snapshot
from amago_ray.errors import ConfigError
from amago_ray.learning.learner import Learner
from amago_ray.learning.training_state import state_hash
from amago_ray.nets.attention.make import build_attention
from amago_ray.nets.attention.sdpa import SdpaAttention
from amago_ray.nets.layout import SequenceLayout

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # The first product of a backward pass runs in a thread that has no context yet; PyTorch makes one and says so.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS"),
]

DATA = Path(os.environ.get("AMAGO_RAY_PARITY_DIR") or Path(__file__).parents[1] / "numerics" / "data")
CASES = sorted(path.stem for path in DATA.glob("*.json") if "agent_class" in json.loads(path.read_text()))
MULTI_STEP = [name for name in CASES if json.loads((DATA / f"{name}.json").read_text())["config"].get("multistep")]
SINGLE_STEP = [name for name in CASES if name not in MULTI_STEP]
LAYOUTS = {"equal": [250] * 6, "ragged": [3, 190, 1, 64, 65, 250], "one": [5], "long": [2000, 1500]}


@pytest.fixture(autouse=True)
def _float32_in_full():
    """TF32 keeps ten bits of a factor: too few for comparisons with recordings."""
    parts = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
    before = [part.fp32_precision for part in parts]
    for part in parts:
        part.fp32_precision = "ieee"
    yield
    for part, precision in zip(parts, before, strict=True):
        part.fp32_precision = precision


def config_of(**settings):
    """Heads of 16 channels: those of half precision's attention kernels are multiples of 8."""
    config = make_config(**settings)
    sequence_model = dataclasses.replace(config.model.sequence_model, d_model=64, num_heads=4, num_layers=2)
    return dataclasses.replace(config, model=dataclasses.replace(config.model, sequence_model=sequence_model))


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_training_step_equals_the_original(name):
    check_training_step(ParityCase.load(DATA / name), "cuda")


@pytest.mark.parametrize("name", MULTI_STEP)
def test_several_steps_equal_the_original(name):
    check_several_steps(ParityCase.load(DATA / name), leaks=True, device="cuda")


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_full_forward_equals_the_original(name):
    check_full_forward(ParityCase.load(DATA / name), "cuda")


@pytest.mark.parametrize("name", SINGLE_STEP)
def test_cached_inference_equals_the_original(name):
    case = ParityCase.load(DATA / name)
    agent = Replay(case, "cuda").agent.eval()
    network = ActingNetwork(case.config, case.spec, device="cuda")
    network.load(to_arrays(agent.acting_state()))
    check_inference(case, agent, network, device="cuda", slack=4.0)


@pytest.mark.parametrize("window", [None, 1, 33])
@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("head_dim", [16, 96])
@pytest.mark.parametrize("name", ["flash_attn", "varlen", "sdpa", "auto"])
def test_attention_in_bfloat16_is_as_exact_as_torch(name, head_dim, lengths, window):
    try:
        backend = build_attention(name)
    except ConfigError as error:
        pytest.skip(str(error))
    torch.manual_seed(0)
    layout = SequenceLayout.from_lengths(lengths, "cuda")
    qkv = torch.randn(layout.num_tokens, 3, 4, head_dim, device="cuda", dtype=torch.bfloat16)
    cotangent = torch.randn(layout.num_tokens, 4, head_dim, device="cuda", dtype=torch.bfloat16)
    results = []
    for attend, dtype in ((backend, qkv.dtype), (SdpaAttention(), qkv.dtype), (SdpaAttention(), torch.float64)):
        given = qkv.to(dtype, copy=True).requires_grad_()
        output = attend(*given.unbind(1), layout, window)
        assert output.dtype == dtype
        (gradient,) = torch.autograd.grad(output, given, cotangent.to(dtype))
        results.append({"output": output, **dict(zip("qkv", gradient.unbind(1), strict=True))})
    assert_as_exact_as(*results[:2], reference=results[2])


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_bfloat16_trains_without_nonfinite_numbers(kind):
    spec = make_spec()
    learner = Learner(config_of(kind=kind, learner={"precision": "bfloat16"}), spec, device="cuda")
    for step in range(12):
        learner.step(make_batch(spec, [15, 3, 9], seed=step))
    metrics = learner.metrics()
    assert metrics["loss/nonfinite_updates"] == 0
    assert all(np.isfinite(value) for value in metrics.values())
    assert all(bool(torch.isfinite(parameter).all()) for parameter in learner.agent.parameters())


@pytest.mark.parametrize("kind", ["actor_critic", "multi_task"])
def test_losses_in_bfloat16_are_close_to_those_in_float32(kind):
    spec = make_spec()

    def losses(precision, seed=None):
        learner = Learner(config_of(kind=kind, learner={"precision": precision}), spec, device="cuda")
        if seed is not None:
            learner.agent.load_state_dict(with_nudged_weights(learner.agent, seed).state_dict())
        learner.step(make_batch(spec, [15, 15, 9, 2]))
        metrics = learner.metrics()
        return {name: torch.tensor(metrics[f"loss/{name}"]) for name in ("total", "critic", "grad_norm")}

    # What is rounded on the way counts about as much as what is rounded before: the weights.
    rounded, exact, plain = losses("bfloat16"), losses("float32"), [losses("float32", seed) for seed in range(4)]
    for name, value in exact.items():
        assert_as_exact_as(rounded[name].bfloat16(), *[each[name] for each in plain], reference=value.double())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("lengths", [[9, 9], [15, 3, 9]], ids=["equal", "ragged"])
def test_an_update_does_not_wait_for_the_device(precision, lengths):
    spec = make_spec()
    learner = Learner(config_of(n_step=2, learner={"precision": precision, "metrics_interval": 2}), spec, device="cuda")
    learner.step(make_batch(spec, lengths))
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            learner.step(make_batch(spec, lengths, weight=[1.0] * (len(lengths) - 1) + [0.0]))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert learner.metrics()["loss/nonfinite_updates"] == 0


def test_a_checkpoint_of_a_gpu_goes_on_without_one_and_back():
    spec, config = make_spec(), config_of()
    learner = Learner(config, spec, device="cuda")
    for step in range(3):
        learner.step(make_batch(spec, [9, 4], seed=step))
    files = learner.save_files()
    on_host = Learner(config, spec, device="cpu", seed=5)
    on_host.load_files(files.__getitem__)
    assert state_hash(on_host.state_dict()) == state_hash(learner.state_dict())
    on_host.step(make_batch(spec, [9, 4], seed=3))
    files = on_host.save_files()
    learner.load_files(files.__getitem__)
    assert state_hash(on_host.state_dict()) == state_hash(learner.state_dict())
    assert all(parameter.is_cuda for parameter in learner.agent.parameters())
    assert learner.step(make_batch(spec, [9, 4], seed=4)).learner_steps == 5


@pytest.mark.parametrize("model", ["transformer", "gru", "feed_forward"])
def test_acting_on_the_gpu_equals_acting_on_the_host(model):
    spec, config = make_spec("box"), config_of()
    sequence_model = sequence_config(model, d_model=8, num_layers=1, num_heads=2, context_length=6)
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, sequence_model=sequence_model))
    weights = Learner(config, spec, device="cpu").agent.acting_state()
    # On the GPU and on the host; and on the host with weights that are a rounding off, which shows what rounding does.
    policies = [Policy(config, spec, device=device) for device in ("cuda", *["cpu"] * 5)]
    for number, policy in enumerate(policies):
        given = weights
        if number > 1:
            floats = {name: tensor for name, tensor in weights.items() if tensor.is_floating_point()}
            given = {**weights, **{name: nudged(tensor, number) for name, tensor in floats.items()}}
        policy.load(Snapshot(PolicyVersion(0, 0), to_arrays(given)))
    states, actions = [policy.initial_state(3) for policy in policies], [[] for _ in policies]
    rng = np.random.default_rng(0)
    for step in range(15):
        observations, reward = rng.standard_normal((3, 3)), rng.standard_normal(3)
        # Different ages, past the context too.
        reset = np.array([step % 4 == 0, step % 11 == 0, False])
        for number, policy in enumerate(policies):
            action, states[number] = policy.act(observations, states[number], reward=reward, reset=reset, greedy=True)
            actions[number].append(action)
    on_gpu, on_host, *moved = (torch.from_numpy(np.stack(each)) for each in actions)
    assert_as_exact_as(on_gpu, *moved, reference=on_host.double())
    sampled, _ = policies[0].act(rng.standard_normal((3, 3)), states[0])
    assert np.isfinite(sampled).all()


def test_an_env_runner_acts_on_the_gpu_across_new_weights():
    pytest.importorskip("gymnasium")
    from helpers import scripted

    from amago_ray.acting.env_runner import EnvRunner
    from amago_ray.acting.exploration import NoExploration

    config, batch = scripted.make_config(context_length=4), scripted.ScriptedBatch(3)
    policy = Policy(config, batch.spec, device="cuda")
    runner = EnvRunner(batch, policy, seed=0, run_id=0, runner=0, incarnation=0, exploration=NoExploration())
    finished = []
    for version in range(1, 6):
        runner.load(scripted.snapshot_of(scripted.make_agent(config, batch.spec, seed=version), version))
        for _ in range(7):
            finished += runner.step()
    assert finished
    assert runner.env_steps == 3 * 35
    # Its random state travels as plain data.
    runner.load_state(runner.state())
    runner.step()
