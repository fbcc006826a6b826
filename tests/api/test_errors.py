from __future__ import annotations

from chutes_exporter.api.errors import UnavailableError
from tests.support import KEY


def test_a_signature_in_the_text_of_an_error_is_hidden_and_other_text_is_not() -> None:
    signature = KEY.headers(0)["X-Chutes-Signature"]
    pairs = [signature[at : at + 2] for at in range(0, 128, 2)]
    with_marks = [mark.join(pairs) for mark in ("-", " : ", "\u2010", "', '")]
    for shown in (signature, signature.upper(), f"0x{signature}", signature[:64], *with_marks):
        assert str(UnavailableError(f"500 cannot verify {shown}!")).endswith("[hex]!")
        assert signature[:2] not in str(UnavailableError(shown)).lower()
    # A possible signature has at least 64 digits.
    for text in ("chute_id='5f0a3c1e-1d2b-4c3d-a1b2-0123456789ab' not found", "f" * 63):
        assert str(UnavailableError(text)) == text
