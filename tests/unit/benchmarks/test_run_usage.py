import pytest
from measuring.run_usage import counts_of, role_of


@pytest.mark.parametrize(
    ("command", "role"),
    [
        ("ray::EnvRunnerActor.run", "env runners"),
        ("ray::EnvRunner(3)", "env runners"),
        ("ray::ReplayShard(0).sample", "replay shards"),
        ("ray::Learner.run", "learners"),
        ("ray::ControlActor", "control actor"),
        ("ray::IDLE", "Ray and driver"),
        ("/usr/bin/raylet --port=1", "Ray and driver"),
        ("python -m amago_ray.cli train Learner", "Ray and driver"),
    ],
)
def test_processes_are_told_apart_by_their_title(command: str, role: str) -> None:
    assert role_of(command) == role


def test_what_was_trained_is_the_ratio_of_what_was_inserted() -> None:
    report = {"env_steps": 120, "learner_steps": 7, "replay/inserted_timesteps": 100, "replay/samples_per_insert": 25}
    assert counts_of(report) == {"env_steps": 120, "learner_steps": 7, "inserted": 100, "trained": 2500}
    assert counts_of({**report, "learner_steps": 0}) is None
