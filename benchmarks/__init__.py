"""Benchmarks for docs/performance.md and docs/sizes.md."""
