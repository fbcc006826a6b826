from __future__ import annotations

import pytest

from chutes_exporter.api.records import Chute, NodeSelector
from chutes_exporter.rules.money import (
    Costs,
    first_day_units,
    first_units_per_second,
    later_units_per_second,
)

RATES = {"h200": 2.75, "l40s": 0.85}
"""US dollars an hour of the models that chutes allow here."""


@pytest.mark.parametrize(
    ("gpus", "multiplier", "models", "rates", "units"),
    [
        # On the cheapest GPU it earns 2.0, and on a dearer one more, in proportion to its rate.
        (4, 2.0, ["l40s", "h200"], RATES, 2.0 * 2.75 / 0.85),
        (4, 2.0, ["h200", "h100"], RATES | {"h100": 2.75}, 2.0),
        # Without the rates, the pay is known only if the chute allows one model.
        (2, 1.0, ["h200"], {}, 1.0),
        (2, 1.0, ["h200", "l40s"], {"h200": 2.75}, None),
        # Without a number of GPUs, a multiplier or the model, it is unknown.
        (0, 1.0, ["h200"], RATES, None),
        (1, None, ["h200"], RATES, None),
        (1, 1.0, ["l40s"], RATES, None),
    ],
)
def test_the_pay_of_an_h200_follows_from_the_chute_and_the_rates(
    gpus: int | None,
    multiplier: float | None,
    models: list[str],
    rates: dict[str, float],
    units: float | None,
) -> None:
    selector = NodeSelector(gpu_count=gpus, supported_gpus=models)
    chute = Chute("c", node_selector=selector, effective_compute_multiplier=multiplier)
    assert first_units_per_second(chute, "h200", rates) == pytest.approx(units)


@pytest.mark.parametrize(
    ("public", "factors", "gpus", "later"),
    [
        # Whatever it runs on, a public instance approaches the pay of the cheapest GPU. Without a
        # bounty of 1.25, 2.0 becomes 1.6, and without an urgency boost of 1.6, it becomes 1.0.
        (True, {}, 4, 2.0),
        (True, {"bounty_boost": 1.25, "tee": 2.25}, 4, 1.6),
        (True, {"bounty_boost": 1.25, "urgency_boost": 1.6, "manual_boost": 3.0}, 4, 1.0),
        # A private one keeps the pay of its own GPU, here an h200 instead of an l40s.
        (False, {"private_tee": 1.3}, 4, 2.0 * 2.75 / 0.85),
        (False, {"bounty_boost": 1.25}, 4, 1.6 * 2.75 / 0.85),
        # Only the pay of a private one depends on its number of GPUs.
        (True, {}, None, 2.0),
        (False, {}, None, None),
        # What is null, and a factor of 0, leave it unknown.
        (True, None, 4, None),
        (None, {}, 4, None),
        (True, {"urgency_boost": 0}, 4, None),
    ],
)
def test_lasting_pay_has_no_bounty_and_no_boost_and_depends_on_who_may_use_the_chute(
    public: bool | None,  # noqa: FBT001 - a parameter
    factors: dict[str, float | None] | None,
    gpus: int | None,
    later: float | None,
) -> None:
    selector = NodeSelector(gpu_count=gpus, supported_gpus=["l40s", "h200"])
    chute = Chute(
        "c",
        public=public,
        node_selector=selector,
        effective_compute_multiplier=2.0,
        compute_multiplier_factors=factors,
    )
    assert later_units_per_second(chute, "h200", RATES) == pytest.approx(later)


def test_the_first_pay_fades_as_the_service_lets_it() -> None:
    # The pay is 3 at first and 2 later. For 2 hours, the whole difference is paid, and until the
    # first run after them. Each run, every 15 minutes, takes away the square of a sixth of the
    # hours since then, of what is left.
    left, paid_hours = 1.0, 2.25
    for run in range(1, 24):
        left -= left * (run / 4 / 6) ** 2
        paid_hours += left / 4
    assert first_day_units(3, 2) == pytest.approx(2 * 86400 + paid_hours * 3600, rel=1e-3)


@pytest.mark.parametrize(
    ("server", "model", "usd_per_hour"),
    [
        ("a", "h200", 1.5),
        # A server with a price of its own needs no model. Another one needs one with a price.
        ("a", None, 1.5),
        ("b", "h200", 2),
        ("b", None, None),
        ("b", "4090", None),
        # The server without a name may be the one with a price.
        (None, "h200", None),
    ],
)
def test_a_server_has_its_own_price_or_that_of_the_model(
    server: str | None, model: str | None, usd_per_hour: float | None
) -> None:
    assert Costs({"h200": 2}, {"a": 1.5}).of_gpu(server, model) == usd_per_hour
