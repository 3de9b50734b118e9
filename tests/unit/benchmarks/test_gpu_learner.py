"""The GPU benchmark, as far as a machine without a GPU can run it."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from gpu_suites import attention, loading, original
from gpu_suites.setting import LearnerSize, Peer, Setting
from measuring.device import Device, DeviceCeilings, datasheet_flops_per_s
from measuring.rows import MEASURED, NotRunError, measure_all, render, table

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
CPU = Device("cpu")
SETTING = Setting(CPU, DeviceCeilings(1e9, 1e9, 1e9, None), seconds=0.01, is_tiny=True)
# What a machine for GPU work need not have.
ABSENT = ("ray", "gymnasium", "pydantic", "flash_attn", "typer", "tensorboardX")
WITHOUT = """
import importlib.abc, runpy, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
sys.path.insert(0, {folder!r})
sys.argv = {argv!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_suites_run_without_ray_and_gymnasium_and_write_their_rows(tmp_path):
    suites = ["throughput", "attention", "loading", "acting", "original"]
    argv = [str(BENCHMARKS / "gpu_learner.py"), "--device", "cpu", "--tiny", "--suite", *suites, "--out", str(tmp_path)]
    code = WITHOUT.format(absent=set(ABSENT), folder=str(BENCHMARKS), argv=[*argv, "--commit", "abc"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("*_gpu_cpu.json")
    result = json.loads(file.read_text())
    assert result["commit"] == "abc"
    assert result["versions"]["torch"] == torch.__version__
    assert list(result["suites"]) == suites
    statuses = {name: {row["status"] for row in suite["rows"]} for name, suite in result["suites"].items()}
    for name in ("throughput", "loading", "acting"):
        assert statuses[name] == {MEASURED}
    for row in result["suites"]["attention"]["rows"]:
        assert row.get("equal") if row["backend"] == "sdpa" else row["status"].startswith("not run: ")
    assert statuses["original"] == {"not run: it needs --peer and --peer-python"}
    for row in result["suites"]["throughput"]["rows"]:
        assert row["nonfinite_updates"] == 0
        assert 0 < row["mfu"] < row["mfu_with_hidden_products"]
    text = file.with_suffix(".md").read_text()
    assert all(f"## {name.capitalize()}" in text for name in suites)


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what a machine without a GPU says")
def test_a_missing_gpu_is_one_line():
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "gpu_learner.py")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("got none (--device cpu --tiny tries the script out)")


def test_what_cannot_be_measured_is_a_row_that_says_why(capsys):
    def no_memory():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 TiB")

    def not_here():
        raise NotRunError("no such module")

    def broken():
        raise ValueError("expected 3\nfound 4")

    measures = (no_memory, not_here, broken, lambda: {"ms": 1.0})
    cases = [({"number": number}, measure) for number, measure in enumerate(measures)]
    rows = list(measure_all(cases, CPU, time.monotonic() + 60))
    assert [row["status"] for row in rows] == [
        "out of memory",
        "not run: no such module",
        "failed: ValueError: expected 3",
        MEASURED,
    ]
    assert "expected 3" in capsys.readouterr().err
    assert rows[3] == {"number": 3, "status": MEASURED, "ms": 1.0}
    late = list(measure_all(cases, CPU, time.monotonic() - 1))
    assert {row["status"] for row in late} == {"left out: the time of the suite was up"}


def test_a_table_has_a_column_for_every_name():
    rows = [{"size": 1, "status": "out of memory"}, {"size": 2, "status": MEASURED, "tokens_per_s": 12345.6}]
    assert table(rows) == [
        "| size | status | tokens per s |",
        "|---|---|---|",
        "| 1 | out of memory |  |",
        "| 2 | measured | 12,346 |",
    ]
    result = {
        "device": "NVIDIA X",
        "began": "now",
        "commit": "abc",
        "versions": {"torch": "2"},
        "ceilings": {"a": 1e12},
    }
    assert "Measured on NVIDIA X" in render({**result, "suites": {"acting": {"about": "Why.", "rows": rows}}})


def test_a_device_is_idle_where_nothing_runs_on_it():
    assert loading.idle_share([]) is None
    assert loading.idle_share([(0.0, 10.0)]) == 0
    # Two streams at once, then a gap of 5 in 20.
    assert loading.idle_share([(15.0, 20.0), (0.0, 8.0), (2.0, 10.0), (3.0, 4.0)]) == pytest.approx(0.25)


def test_a_producer_ends_though_nobody_takes():
    before = set(threading.enumerate())
    with loading.Producer(lambda: object()) as producer:
        assert producer.take() is not producer.take()
        assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) <= before


def test_datasheet_rates_are_those_of_the_device_s_own_name():
    assert datasheet_flops_per_s("NVIDIA H200") == 989e12
    assert datasheet_flops_per_s("NVIDIA H100 PCIe") == 756e12
    assert datasheet_flops_per_s("NVIDIA L40S") == 362e12
    assert datasheet_flops_per_s("cpu") is None


def test_a_backend_that_looks_ahead_is_not_equal(monkeypatch):
    def look_ahead(q, k, v, layout, window=None):
        q, k, v = (x.transpose(0, 1)[None] for x in (q, k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1)

    monkeypatch.setattr(attention, "build_attention", lambda name: look_ahead)
    row = attention.measure(SETTING, attention.TINY[1], "varlen")
    assert not row["equal"]
    assert row["output_error"] > 0.1


def test_sizes_of_floors_are_those_of_the_learner():
    size = LearnerSize(2, 8, 32, 1)
    updates = size.updates(CPU)
    agent = updates.learner.agent
    weights = [*agent.timestep_encoder.mlp.parameters(), *agent.sequence_model.parameters()]
    macs = sum(weight.numel() for weight in weights if weight.dim() == 2)
    assert size.network.trunk_macs == macs


def test_both_sides_are_measured_in_turns(monkeypatch):
    def stand_in(peer, case):
        assert case["attention"] == "vanilla"
        return [sys.executable, str(BENCHMARKS / "our_side.py"), "learning", json.dumps({**case, "attention": "sdpa"})]

    monkeypatch.setattr(original, "original_command", stand_in)
    setting = Setting(CPU, SETTING.ceilings, 0.01, is_tiny=True, peer=Peer(Path("checkout"), Path("python")))
    *_, (case, measure) = original.cases(setting)
    row = measure()
    assert case["precision"] == "bfloat16"
    assert row["ratio"] == pytest.approx(row["original_ms"] / row["our_ms"])
    assert row["original_parameters"] == row["our_parameters"]
