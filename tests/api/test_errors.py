from __future__ import annotations

import pytest

from chutes_exporter.api.errors import UnavailableError, scrub
from tests.support import KEY

SIGNATURE = KEY.headers(0)["X-Chutes-Signature"]


@pytest.mark.parametrize("form", ["{}", "0x{}", "{:.64}"])
def test_a_signature_in_the_text_of_an_error_is_hidden(form: str) -> None:
    for signature in (SIGNATURE, SIGNATURE.upper()):
        error = UnavailableError(f"500 cannot verify {form.format(signature)}!", status=500)
        assert str(error).endswith("[hex]!")
        assert SIGNATURE[:32] not in str(error).lower()


@pytest.mark.parametrize("text", ["chute_id='5f0a3c1e-1d2b-4c3d-a1b2-0123456789ab' not found", "f" * 63])
def test_text_without_a_signature_is_kept(text: str) -> None:
    assert scrub(text) == text
