"""Who is late is warned of once; who lives on without being of use is to be killed."""

from __future__ import annotations

from typing import Any

from amago_ray.config.supervision import SupervisionConfig
from amago_ray.runtime.driver.pulse_watch import Alarm, PulseWatch
from amago_ray.runtime.protocol.pulse import Pulse

SETTINGS = SupervisionConfig(late_after_s=30.0, dead_after_s=120.0, stuck_after_s=1800.0)
NAME = "env runner 3"


class Scene:
    """A watch over one process; looks are 2 s apart."""

    def __init__(self, settings: SupervisionConfig = SETTINGS, interval_s: float = 5.0) -> None:
        self.now_s = 1000.0
        self.watch = PulseWatch(settings, interval_s, lambda: self.now_s)
        self.watch.begin(NAME)
        self.number = 0

    def pulse(self, **changes: Any) -> Pulse:
        self.number += 1
        return Pulse(
            **{"started_ns": 1, "number": self.number, "host": "h", "doing": "stepping", "busy_s": 0.5, **changes}
        )

    def look(self, pulse: Pulse | None = None) -> list[Alarm]:
        self.now_s += 2
        return self.watch.look({} if pulse is None else {NAME: pulse})

    def silence(self, time_s: float) -> list[Alarm]:
        """Nothing is heard for so long."""
        return [alarm for _ in range(int(time_s / 2)) for alarm in self.look()]


def test_late_is_said_once_and_death_after_it() -> None:
    scene = Scene()
    scene.look(scene.pulse(busy_s=12.3))
    assert scene.silence(28) == []
    assert scene.silence(90) == [Alarm(NAME, "on h has been silent for 30 s, at last stepping for 12 s", False)]
    assert scene.silence(500) == [
        Alarm(NAME, "has been silent for 120 s, at last stepping for 12 s: it is killed", True)
    ]


def test_one_that_speaks_again_is_warned_of_anew() -> None:
    scene = Scene()
    for _ in range(3):
        scene.look(scene.pulse())
        assert [alarm.must_kill for alarm in scene.silence(40)] == [False]


def test_long_work_is_no_silence() -> None:
    scene = Scene()
    for time_s in range(0, 290, 2):
        assert scene.look(scene.pulse(doing="at update 1", busy_s=float(time_s))) == []


def test_work_that_does_not_end_is_told_and_then_ended() -> None:
    scene = Scene()
    alarms = [
        alarm
        for time_s in range(0, 2000, 2)
        for alarm in scene.look(scene.pulse(doing="at update 1", busy_s=float(time_s)))
    ]
    assert alarms == [
        Alarm(NAME, "has been at update 1 for 300 s", False),
        Alarm(NAME, "has been at update 1 for 1800 s: it is killed", True),
    ]


def test_what_cannot_be_interrupted_is_ended() -> None:
    scene = Scene()
    (alarm,) = scene.look(scene.pulse(hung="env 'x' has taken 130 s and cannot be interrupted"))
    assert alarm.must_kill
    assert alarm.text == "hangs, env 'x' has taken 130 s and cannot be interrupted: it is killed"


def test_time_in_which_nobody_listened_does_not_count() -> None:
    """As when the driver itself was stopped, or held up by an answer."""
    scene = Scene()
    scene.look(scene.pulse())
    scene.now_s += 10_000
    assert scene.look() == []
    assert scene.look(scene.pulse()) == []


def test_one_that_is_not_there_yet_is_pending_and_not_judged() -> None:
    scene = Scene()
    assert scene.silence(28) == []
    assert scene.watch.newly_pending() == []
    assert scene.silence(4) == []
    assert scene.watch.newly_pending() == [NAME]
    assert scene.watch.newly_pending() == [], "again after as long"
    scene.silence(32)
    assert scene.watch.newly_pending() == [NAME]
    scene.look(scene.pulse())
    scene.silence(32)
    assert scene.watch.newly_pending() == []


def test_a_successor_is_judged_by_its_own_pulses() -> None:
    scene = Scene()
    scene.look(scene.pulse())
    assert scene.silence(130)[-1].must_kill
    scene.look(scene.pulse(started_ns=2))
    assert scene.silence(28) == []
    # The former one was only cut off, and is back.
    assert len(scene.look(scene.pulse(started_ns=1))) == 1
    assert scene.silence(100)[-1].must_kill


def test_the_end_tells_what_was_at_stake() -> None:
    scene = Scene()
    assert scene.watch.end("nobody") == {}
    scene.look(scene.pulse(at_stake={"episodes": 4}))
    assert scene.watch.end(NAME) == {"episodes": 4}
    assert scene.silence(500) == []
    scene.watch.begin(NAME)
    assert scene.watch.end(NAME) == {}, "its successor has lost nothing yet"


def test_rare_pulses_give_more_time() -> None:
    scene = Scene(interval_s=100.0)
    scene.look(scene.pulse())
    assert scene.silence(190) == []
    assert [alarm.must_kill for alarm in scene.silence(220)] == [False, True]


def test_sights_show_who_was_silent_for_longest_first() -> None:
    scene = Scene()
    scene.watch.begin("learner")
    scene.look(scene.pulse(busy_s=3.0))
    scene.silence(4)
    first, second = scene.watch.sights(9)
    assert (first.name, first.host, first.age_s) == ("learner", "", 6)
    assert (second.name, second.host, second.age_s, second.doing, second.busy_s) == (NAME, "h", 4, "stepping", 3.0)
    assert scene.watch.sights(1) == [first]
