"""Pay by the chain, compared with what plain arithmetic makes of the raw answers of a node."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from chutes_exporter.chain.node import Node
from tests.chain.support import EXPECTED, FakeNode, number, recorded_block, stored
from tests.support import NOON, PATIENCE, data_of, series

if TYPE_CHECKING:
    from chutes_exporter.chain.subnet import Subnet
    from chutes_exporter.demo.chain import Block

SEATS = EXPECTED["seats"]
TEMPO = 360
"""Blocks from one epoch to the next."""
RECORDED_PART = 0.41
"""The part of the emission that miners have in the recorded block."""
RATIO = series("chutes_subnet_miners_emission_ratio")


def pay_by_hand(block: Block) -> dict[str, Fraction]:
    """Return alpha a day by hotkey, from the texts of the storage alone."""
    (head,), (epoch,) = stored(block, "Number"), stored(block, "LastMechansimStepBlock")
    (pending,) = stored(block, "PendingServerEmission")
    incentive = stored(block, "Incentive")
    # What has gathered since the last epoch. A day has 7200 blocks, and an alpha 10^9 rao.
    alpha_a_day = Fraction(7200 * pending, (head - epoch) * 10**9)
    pay = {}
    for hotkey, seat in SEATS.items():
        if hotkey not in EXPECTED["subnet"]["withheld_hotkeys"]:
            pay[hotkey] = alpha_a_day * Fraction(incentive[seat["uid"]], sum(incentive))
    return pay


def pay_by_epochs(block: Block) -> dict[str, Fraction]:
    """Return alpha a day by hotkey as long as each epoch pays what the last one paid, which is
    true if the split has not changed since.
    """
    emission, dividends = stored(block, "Emission"), stored(block, "Dividends")
    pay = {}
    for hotkey, seat in SEATS.items():
        is_withheld = hotkey in EXPECTED["subnet"]["withheld_hotkeys"]
        # With dividends, its emission is not only the pay of a miner.
        has_dividends = dividends[seat["uid"]] > 0
        if not is_withheld and not has_dividends:
            pay[hotkey] = Fraction(emission[seat["uid"]] * 7200, TEMPO * 10**9)
    return pay


def split(miners: float, since_epoch: int) -> Block:
    """Return the recorded block, so many blocks after the last epoch, as if the owner had given
    miners another part of the emission then.
    """
    (head,) = stored(recorded_block(), "Number")
    (per_block,) = stored(recorded_block(), "SubnetAlphaOutEmission")
    return recorded_block(
        last_paid_epoch=number(head - since_epoch, 8),
        pending_miners=number(miners * per_block * since_epoch, 8),
    )


def after_an_epoch(block: Block) -> Block:
    """Return a block whose last epoch has paid what gathers in an epoch now, in whole rao."""
    (head,), (epoch,) = stored(block, "Number"), stored(block, "LastMechansimStepBlock")
    (pending,) = stored(block, "PendingServerEmission")
    incentive = stored(block, "Incentive")
    # In a whole epoch, as much gathers in each block as since the last epoch.
    gathered = TEMPO * pending // (head - epoch)
    parts = [gathered * part // sum(incentive) for part in incentive]
    # The two lowest bits of the length say that it has two bytes.
    length = (len(parts) << 2 | 1).to_bytes(2, "little").hex()
    texts = [number(part, 8).removeprefix("0x") for part in parts]
    return recorded_block(emission="0x" + length + "".join(texts))


async def paid(block: Block) -> tuple[dict[str, float], float]:
    """Return what the page says: alpha a day by hotkey, and the part of the miners."""
    page = data_of(await FakeNode(block).page())
    pay = {}
    for hotkey in SEATS.keys() - EXPECTED["subnet"]["withheld_hotkeys"]:
        pay[hotkey] = page[series("chutes_miner_emission_alpha_per_day", hotkey=hotkey)]
    return pay, page[RATIO]


async def test_pay_is_what_the_raw_answers_give_and_what_the_last_epoch_paid() -> None:
    block = recorded_block()
    pay, ratio = await paid(block)
    assert pay == pytest.approx({hotkey: float(one) for hotkey, one in pay_by_hand(block).items()})
    assert ratio == pytest.approx(RECORDED_PART, rel=1e-5)
    for hotkey, alpha in pay_by_epochs(block).items():
        assert pay[hotkey] == pytest.approx(float(alpha), rel=2e-5)


@pytest.mark.parametrize("miners", [0.33, 0.5, 0.67])
async def test_a_changed_split_shows_in_the_pay_an_epoch_before_it_is_paid(miners: float) -> None:
    block = split(miners, since_epoch=3)
    pay, ratio = await paid(block)
    assert ratio == pytest.approx(miners)
    assert pay == pytest.approx({hotkey: float(one) for hotkey, one in pay_by_hand(block).items()})
    # The last epoch still paid by the old split. The next one pays by the new one.
    for hotkey, alpha in pay_by_epochs(block).items():
        assert pay[hotkey] == pytest.approx(float(alpha) * miners / RECORDED_PART, rel=2e-5)
    for hotkey, alpha in pay_by_epochs(after_an_epoch(block)).items():
        assert pay[hotkey] == pytest.approx(float(alpha), rel=1e-6)


async def test_the_pay_stays_known_in_the_block_of_an_epoch() -> None:
    (head,) = stored(recorded_block(), "Number")
    at_epoch = recorded_block(last_paid_epoch=number(head, 8), pending_miners=number(0, 8))
    before, after = await read_one_after_another(recorded_block(), at_epoch)
    assert before.alpha_per_day is not None
    assert after.alpha_per_day == before.alpha_per_day
    assert after.miners_emission_ratio == before.miners_emission_ratio


async def test_the_pay_is_unknown_once_other_rules_apply() -> None:
    two_mechanisms = recorded_block(mechanisms="0x02")
    before, after = await read_one_after_another(recorded_block(), two_mechanisms)
    assert before.alpha_per_day is not None
    assert after.alpha_per_day is None


async def read_one_after_another(*blocks: Block) -> list[Subnet]:
    """Return what one reader of a node makes of its blocks. It remembers the last pay."""
    fake = FakeNode()
    subnets = []
    async with fake.serve() as url, Node(url, timeout=PATIENCE, clock=lambda: NOON) as node:
        for block in blocks:
            fake.block = block
            subnets.append((await node.read()).value)
    return subnets
