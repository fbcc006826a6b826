from __future__ import annotations

from uuid import RFC_4122, UUID

from chutes_exporter.simulator.naming import make_random, make_uuid


def test_the_same_parts_give_the_same_id_and_other_parts_another() -> None:
    assert make_uuid("64", "chute", 3) == make_uuid("64", "chute", 3)
    assert len({make_uuid("64", "chute", number) for number in range(1000)}) == 1000
    assert make_uuid("64", "chute", 3) != make_uuid("64", "user", 3)


def test_an_id_looks_like_a_random_uuid() -> None:
    for number in range(100):
        uuid = UUID(make_uuid("64", number))
        assert (uuid.version, uuid.variant) == (4, RFC_4122)
        assert str(uuid) == make_uuid("64", number)


def test_the_same_parts_give_the_same_random_numbers() -> None:
    first, second, other = make_random("64", 1), make_random("64", 1), make_random("64", 2)
    numbers = [first.random() for _ in range(3)]
    assert numbers == [second.random() for _ in range(3)]
    assert numbers != [other.random() for _ in range(3)]
