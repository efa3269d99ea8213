"""The same work done by other engines, each in an environment of its own: `python -m benchmarks.peers`."""
