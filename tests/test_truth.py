from __future__ import annotations

from collections.abc import Mapping

from chutes_exporter.collectors import COLLECTORS, table
from tests import test_day, test_worlds

ROWS = (*test_day.PAGE, *test_worlds.ROWS)
WITHOUT_TRUTH = {
    "amounts of money (golden.py, rules/test_money.py)": """
        chutes_alpha_price_usd chutes_compute_unit_usd chutes_miner_cost_usd_per_hour
        chutes_miner_estimated_profit_usd_per_day chutes_miner_estimated_usd_per_day
        chutes_server_cost_usd_per_gpu_hour chutes_server_estimated_profit_usd_per_day
        chutes_server_idle_cost_usd_per_day""",
    "the chain (chain/test_subnet.py)": "chutes_miner_seat_immune",
    "made of ratios of other miners, which are compared": """
        chutes_miner_consensus_ratio chutes_miner_incentive_rank chutes_miner_registered
        chutes_miner_score_next_better_ratio chutes_scored_miners""",
    "pay by a rule (rules/test_money.py, fleet/test_offers.py, fleet/test_placement.py)": """
        chutes_fleet_idle_compute_units_per_second
        chutes_instance_compute_units_per_second chutes_instance_later_compute_units_per_second
        chutes_launch_first_day_units_per_gpu_second chutes_launch_later_units_per_gpu_second
        chutes_server_compute_units_per_second chutes_server_idle_compute_units_per_second
        chutes_server_launch_compute_units_per_second chutes_server_launch_instances""",
    "advice of this exporter (fleet/test_upgrades.py, rules/test_instances.py)": """
        chutes_instance_deadline_timestamp_seconds chutes_instance_decision
        chutes_server_launch_left_out chutes_server_maintenance_step
        chutes_server_upgrade_done_timestamp_seconds""",
    "counted since the start of the process": """
        chutes_miner_instance_ends_total chutes_miner_observed_lost_compute_units_total""",
    "what is known (tests/unknown)": "chutes_fleet_known chutes_miner_unknown_losses",
    "one step from an answer (collectors/, fleet/test_join.py)": """
        chutes_autoscaler_timestamp_seconds chutes_bounty_boost_ratio
        chutes_demand_timestamp_seconds chutes_gpu_verified
        chutes_instance_planned_start_end chutes_launch_urgency_boost_ratio
        chutes_chute_rate_limited_ratio chutes_chute_recent_utilization_ratio
        chutes_chute_inactive_instances chutes_chute_target_instances chutes_image_info
        chutes_image_state
        chutes_instance_gpus chutes_job_tries chutes_jobs_available
        chutes_jobs_oldest_created_timestamp_seconds chutes_launch_starting_instances
        chutes_miner_average_active_gpus chutes_miner_last_activation_timestamp_seconds
        chutes_open_bounties chutes_server_earning_instances""",
}
"""Metrics that stand in no row, by the reason."""


def is_field(row: table.Row) -> bool:
    """Return whether a metric is a field of a record, which the reference shows."""
    values = row.value.values() if isinstance(row.value, Mapping) else [row.value]
    return all(isinstance(value, str) for value in values)


def test_each_metric_is_compared_with_the_truth_or_has_a_reason() -> None:
    compared = {row.shown.partition("{")[0] for row in ROWS}
    excused = {name for names in WITHOUT_TRUTH.values() for name in names.split()}
    metrics, fields = set(), set()
    for collector in COLLECTORS:
        metrics |= {metric.name for metric in collector.metrics}
        for part in collector.parts:
            if isinstance(part, table.Table):
                fields |= {metric.name for metric, row in part.rows.items() if is_field(row)}
    assert metrics - compared - fields == excused
