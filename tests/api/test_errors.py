from __future__ import annotations

import inspect
import re

import pytest

from chutes_exporter.api import errors
from chutes_exporter.api.errors import ApiError, UnavailableError, scrub
from tests.support import KEY

SIGNATURE = KEY.headers(0)["X-Chutes-Signature"]
KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ApiError) and kind is not ApiError
]


@pytest.mark.parametrize(
    "signature",
    [SIGNATURE, SIGNATURE.upper(), f"0x{SIGNATURE}", SIGNATURE[:64]],
    # A signature is never the same twice, and the processes of a parallel run compare names.
    ids=["plain", "upper", "prefixed", "half"],
)
def test_a_signature_in_the_text_of_an_error_is_hidden(signature: str) -> None:
    error = UnavailableError(f"500 cannot verify {signature}!", status=500)
    assert str(error).removesuffix("!").endswith("[hex]")
    assert SIGNATURE[:32] not in str(error).lower()


@pytest.mark.parametrize(
    "text", ["chute_id='5f0a3c1e-1d2b-4c3d-a1b2-0123456789ab' not found", "f" * 63, "5GNocjnm", ""]
)
def test_text_without_a_signature_is_kept(text: str) -> None:
    assert scrub(text) == text


def test_every_kind_of_error_has_its_own_reason() -> None:
    reasons = [kind.reason for kind in KINDS]
    assert len(reasons) == len(set(reasons)) > 10
    assert all(re.fullmatch("[a-z_]+", reason) for reason in reasons)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_its_own_advice(kind: type[ApiError]) -> None:
    error = kind("503 down", status=503)
    assert (str(error), error.status) == ("503 down", 503)
    assert error.advice != ApiError.advice
    assert error.advice.endswith(".")


def test_advice_for_one_error_leaves_the_advice_of_its_kind_unchanged() -> None:
    usual = UnavailableError("no route").advice
    assert UnavailableError("no route", advice="Check the proxy.").advice == "Check the proxy."
    assert UnavailableError("no route").advice == usual
