import json

import pytest
from measuring.machine import hardware_slug
from measuring.report import best, render, table_rows, write

HARDWARE = {"processor": "AMD EPYC", "num_cpus": 2, "memory_gib": 24, "platform": "Linux"}


def side(whose, name, *measured, error=None, other_cpu_s=0.0, reached=True, limit=None):
    repetitions = [
        {"value": value, "reached": reached, "elapsed_s": 4.0, "tree_cpu_s": 7.5, "other_cpu_s": other_cpu_s}
        for value in measured
    ]
    floor = None if limit is None else {"limit": limit}
    return {"whose": whose, "name": name, "error": error, "repetitions": repetitions, "floor": floor}


def work(*sides, target=10.0):
    return {"name": "a maze", "target": target, "sides": list(sides)}


def suite(*works, more_is_better=True):
    return {
        "unit": "env steps/s",
        "more_is_better": more_is_better,
        "began": "2026-01-02T03:04:05+00:00",
        "commit": "abc",
        "peer_commit": "def",
        "works": list(works),
    }


def test_ours_is_compared_with_the_originals_best_side():
    sides = [side("original", "async", 1000.0, 900.0), side("original", "sync", 2000.0, 2200.0)]
    (row,) = table_rows(work(*sides, side("ours", "default", 20_000.0, 22_000.0, limit=40_000.0)), True, 2)
    assert row == [
        "a maze",
        "sync: 2,100 (2,000 to 2,200)",
        "default: 21,000 (20,000 to 22,000)",
        "**10.00 x** (10 to 10)",
        "10 x",
        "40,000",
        "52%",
        "0%",
    ]


def test_of_times_the_shortest_is_the_best():
    assert best([side("original", "a", 3.0), side("original", "b", 2.0)], more_is_better=False)["name"] == "b"
    (row,) = table_rows(work(side("original", "a", 900.0), side("ours", "b", 300.0, limit=200.0)), False, 2)
    assert row[3] == "**3.00 x**"
    assert row[6] == "67%"


def test_a_side_that_failed_says_why_and_spoils_nothing():
    sides = [side("original", "async", error="BrokenPipeError: x"), side("original", "sync", 100.0)]
    (row,) = table_rows(work(*sides, side("ours", "default", 1000.0)), True, 2)
    assert row[1] == "sync: 100"
    (row,) = table_rows(work(sides[0], side("ours", "default", 1000.0)), True, 2)
    assert row[1] == "async: BrokenPipeError: x"
    assert row[3] == ""


def test_a_goal_that_the_original_missed_bounds_the_ratio():
    sides = [side("original", "sync", 300.0, reached=False), side("ours", "default", 50.0)]
    (row,) = table_rows(work(*sides), False, 2)
    assert row[1] == "sync: not reached within 300"
    assert row[3] == "**> 6.00 x**"


def test_a_goal_that_ours_missed_is_no_ratio():
    sides = [side("original", "sync", 300.0), side("ours", "default", 50.0, reached=False)]
    (row,) = table_rows(work(*sides), False, 2)
    assert row[2:4] == ["default: not reached within 50", ""]


def test_the_load_of_others_is_that_of_the_worst_repetition_of_either_side():
    sides = [side("original", "sync", 1.0, other_cpu_s=2.0), side("ours", "default", 2.0, other_cpu_s=0.4)]
    (row,) = table_rows(work(*sides), True, num_cpus=2)
    assert row[-1] == "25%"


def test_without_a_peer_ours_stands_alone():
    (row,) = table_rows(work(side("ours", "default", 5.0)), True, 2)
    assert row[1] == row[3] == ""


def test_suites_are_kept_beside_each_other_and_replaced_by_newer_ones(tmp_path):
    path = tmp_path / "results" / "2026-01-02_box"
    write(path, HARDWARE, {"acting": suite(work(side("ours", "old", 1.0)))})
    write(path, HARDWARE, {"learning": suite(work(side("ours", "l", 1.0)), more_is_better=False)})
    write(path, HARDWARE, {"acting": suite(work(side("ours", "new", 2.0)))})
    found = json.loads(path.with_suffix(".json").read_text())
    assert list(found["suites"]) == ["acting", "learning"]
    assert found["suites"]["acting"]["works"][0]["sides"][0]["name"] == "new"
    text = path.with_suffix(".md").read_text()
    assert text == render(found)
    assert "| a maze: ours, new | 2 | 7.5 | 0.0 |" in text
    assert "2 x AMD EPYC, 24 GiB" in text


@pytest.mark.parametrize(
    ("processor", "slug"),
    [
        ("AMD EPYC", "2x_amd_epyc_24gib"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "2x_intel_xeon_cpu_e5_2680_v4_24gib"),
    ],
)
def test_hardware_names_a_file(processor, slug):
    assert hardware_slug({**HARDWARE, "processor": processor}) == slug
