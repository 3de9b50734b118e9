"""What the benchmarks share: works, floors, the load of the machine, statistics, reports. Standard library only,
except `ceilings` (torch), so that the peer's Python can import it too.
"""
