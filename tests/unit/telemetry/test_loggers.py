import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.full_disk import full_disk
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from amago_ray.errors import RunDirectoryError
from amago_ray.telemetry.loggers import JsonlLogger, LoggerGroup, TensorBoardLogger, read_metrics


def test_jsonl_appends_one_readable_line_per_report_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)

    logger.log(10, {"eval/return_mean": 0.5})
    assert [record["env_steps"] for record in read_metrics(path)] == [10]
    logger.log(20, {"eval/return_mean": 0.75})
    logger.close()
    logger.close()

    records = read_metrics(path)
    assert [record["eval/return_mean"] for record in records] == [0.5, 0.75]
    assert records[0]["unix_time_s"] > 1e9


def test_a_resumed_log_goes_on_and_loses_the_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 1}\n{"env_st')

    assert read_metrics(path) == [{"env_steps": 1}]
    logger = JsonlLogger(path)
    logger.log(2, {})
    logger.close()

    assert [json.loads(line)["env_steps"] for line in path.read_text().splitlines()] == [1, 2]


def test_what_was_logged_beyond_what_is_resumed_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"env_steps": 1}\n{"env_steps": 2}\n{"env_steps": 3}\n{"env_steps": 1}\n{"env')
    logger = JsonlLogger(path, keep=lambda report: report["env_steps"] <= 2)
    logger.log(4, {})
    logger.close()
    assert [record["env_steps"] for record in read_metrics(path)] == [1, 2, 4]

    path.write_bytes(b"no report\n")
    with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl: expected a report of JSON in each line"):
        JsonlLogger(path, keep=lambda report: True)


def test_a_log_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"nowhere/metrics\.jsonl: cannot be written: No such file"):
        JsonlLogger(tmp_path / "nowhere" / "metrics.jsonl")


def test_values_without_a_finite_number_are_left_out_everywhere_and_counted(tmp_path: Path) -> None:
    group = LoggerGroup([JsonlLogger(tmp_path / "a.jsonl"), JsonlLogger(tmp_path / "b.jsonl")])

    group.log(1, {"loss": math.nan, "lag": None, "fill": 0.5})
    shown = group.log(2, {"loss": math.inf})
    group.close()

    for name in ("a.jsonl", "b.jsonl"):
        first, second = read_metrics(tmp_path / name)
        assert first["fill"] == 0.5
        assert "loss" not in first
        assert "lag" not in first
        assert first["telemetry/num_dropped_values"] == 2
        assert second["telemetry/num_dropped_values"] == 3
    assert shown == {"telemetry/num_dropped_values": 3.0}


def test_tensorboard_reads_scalars_over_env_steps(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    logger.log(100, {"rollout/return_mean": 0.5})
    logger.log(200, {"rollout/return_mean": 1.5})
    logger.close()

    events = EventAccumulator(str(tmp_path)).Reload().Scalars("rollout/return_mean")
    assert [(event.step, event.value) for event in events] == [(100, 0.5), (200, 1.5)]


def test_a_resumed_run_hides_what_was_logged_beyond_its_checkpoint(tmp_path: Path) -> None:
    first = TensorBoardLogger(tmp_path)
    for step in (100, 200, 300):
        first.log(step, {"loss/total": 1.0})
    first.close()
    second = TensorBoardLogger(tmp_path, first_env_step=200)
    second.log(250, {"loss/total": 2.0})
    second.close()

    steps = [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("loss/total")]
    assert steps == [100, 250]


def test_logging_and_showing_never_load_torch_or_ray(tmp_path: Path) -> None:
    code = f"""
import pathlib, sys
from amago_ray.telemetry import bottleneck, console, loggers, metrics
logger = loggers.TensorBoardLogger(pathlib.Path({str(tmp_path)!r}))
logger.log(1, {{"a": 1.0}})
logger.close()
print(sorted({{"torch", "ray"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_logger_without_room_ends_neither_the_run_nor_the_others_and_loses_nothing(tmp_path: Path) -> None:
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    group = LoggerGroup([JsonlLogger(paths[0]), TensorBoardLogger(tmp_path), JsonlLogger(paths[1])])
    group.log(1, {"fill": 0.5})
    with full_disk():
        for env_steps in (2, 3):
            group.log(env_steps, {"fill": 0.5})
    warnings = group.take_warnings()
    assert len(warnings) == 3, "each is told once"
    assert all(str(tmp_path) in warning and "cannot be written" in warning for warning in warnings)
    group.log(4, {"fill": 0.5})
    group.close()
    assert group.take_warnings() == []
    for path in paths:
        assert [record["env_steps"] for record in read_metrics(path)] == [1, 2, 3, 4]
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("fill")
    assert [event.step for event in events] == [1, 2, 3, 4]


def test_reports_that_never_find_room_are_said_to_be_lost(tmp_path: Path) -> None:
    group = LoggerGroup([JsonlLogger(tmp_path / "a.jsonl")])
    with full_disk():
        group.log(1, {})
        group.close()
    assert [warning.split(": ", 1)[1].split(":")[0] for warning in group.take_warnings()] == [
        f"{tmp_path}/a.jsonl",
        f"{tmp_path}/a.jsonl",
    ]
