"""Benchmarks for docs/dev/performance.md."""
