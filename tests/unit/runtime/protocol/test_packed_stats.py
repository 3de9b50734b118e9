import pickle

from amago_ray.data.episode import PolicyVersion
from amago_ray.data.episode_stats import EpisodeStats
from amago_ray.runtime.protocol.packed_stats import pack, unpack


def test_statistics_are_unpacked_as_they_were_packed() -> None:
    for stats in (
        EpisodeStats("maze", 1.5, 50, 7, PolicyVersion(3, 40), 1.0, {"keys": 2.0}),
        EpisodeStats("a/b", -0.1, 1, 0, PolicyVersion(-1, -1)),
    ):
        assert unpack(pack(stats)) == stats
        assert isinstance(unpack(pack(stats)).policy_version, PolicyVersion)
        assert len(pack(stats)) < len(pickle.dumps(stats)) / 2
