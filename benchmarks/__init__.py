"""Measurements; see docs/performance.md and docs/sizes.md."""
