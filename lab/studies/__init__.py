"""One question each, answered in docs/benchmarks.md."""
