import subprocess
import sys

import pytest
from measuring.load import (
    TICKS_PER_S,
    LoadWindow,
    ProcessStat,
    TreeClock,
    parse_busy_ticks,
    parse_process_stat,
)


def process(pid, parent, cpu_s, started=1):
    return ProcessStat(pid, parent, started, round(cpu_s * TICKS_PER_S))


def test_the_name_of_a_process_may_hold_spaces_and_brackets():
    text = "42 (ray::Env) Runner (x)) S 7 42 42 0 -1 4194304 1 2 3 4 110 15 600 700 20 0 3 0 987654 1 2 3"
    assert parse_process_stat(text) == ProcessStat(pid=42, parent=7, started=987654, cpu_ticks=125)


def test_busy_is_neither_idle_nor_waiting_for_disks_and_guests_count_once():
    text = "cpu  100 10 30 5000 600 1 2 40 77 88\ncpu0 1 2 3 4 5 6 7 8 9 10\n"
    assert parse_busy_ticks(text) == 100 + 10 + 30 + 1 + 2 + 40


def test_a_tree_holds_descendants_and_nobody_else():
    clock = TreeClock([10])
    total = clock.look([process(1, 0, 9.0), process(10, 1, 1.0), process(12, 11, 3.0), process(11, 10, 2.0)])
    assert total == pytest.approx(6.0)


def test_a_tree_keeps_what_ended_and_what_was_orphaned():
    clock = TreeClock([10])
    clock.look([process(10, 1, 1.0), process(11, 10, 2.0), process(12, 11, 3.0)])
    # 11 has ended; 12 belongs to init now and has worked on; its new child is ours as well.
    assert clock.look([process(10, 1, 1.5), process(12, 1, 4.0), process(13, 12, 0.5)]) == pytest.approx(8.0)
    assert clock.living([process(10, 1, 1.5), process(12, 1, 4.0), process(99, 1, 0)]) == [10, 12]


def test_a_number_that_is_used_again_is_somebody_else():
    clock = TreeClock([10])
    clock.look([process(10, 1, 1.0), process(11, 10, 2.0, started=5)])
    assert clock.look([process(10, 1, 1.0), process(11, 1, 70.0, started=9)]) == pytest.approx(3.0)


def test_a_window_tells_our_work_from_that_of_others():
    spin = "input()\nwhile time.process_time() < used + 0.4: pass\nprint(time.process_time(), flush=True)\ninput()"
    program = f"import time; used = time.process_time()\nprint(used, flush=True)\n{spin}"
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdout.readline()
    with LoadWindow([child.pid], interval_s=0.05) as window:
        child.stdin.write("\n")
        used_s = float(child.stdout.readline())
    child.communicate("\n")
    # A tick may be missing at either end.
    assert 0.4 - 2 / TICKS_PER_S <= window.load.tree_cpu_s <= used_s + 2 / TICKS_PER_S
    assert window.load.other_cpu_s >= 0.0
    assert window.load.elapsed_s >= 0.4 - 2 / TICKS_PER_S
