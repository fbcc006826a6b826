"""The page: which collectors run for which miner, rendering, and the exporter's own metrics."""
