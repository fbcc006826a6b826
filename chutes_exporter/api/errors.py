"""Errors of the Chutes API, each with advice for the user."""

from __future__ import annotations

import re
from typing import ClassVar

# Marks count only between words of nothing but hexadecimal digits. A repetition with another "+"
# never gives back, so that no text takes long.
_MARKS = r"[^0-9A-Za-z]{1,4}+(?=[0-9a-fA-F]++(?![0-9A-Za-z]))"
_LONG_HEX = re.compile(
    rf"[0-9a-fA-F]{{64,}}+|(?<![0-9A-Za-z])[0-9a-fA-F](?:(?:{_MARKS})?+[0-9a-fA-F]){{63,}}+"
)


def scrub(text: str) -> str:
    """Remove runs of 64 hexadecimal digits or more, with or without marks: possible signatures."""
    return _LONG_HEX.sub("[hex]", text)


# "user:password@" after "https://". A password may have "/" and "@".
_URL_USER = re.compile(r"(:/+)\S*@")
# A mnemonic has at least 12 words of 3 to 8 letters.
_WORDS = re.compile(r"\b(?:[a-z]{3,8}\s+){11,}[a-z]{3,8}\b", re.IGNORECASE)
_LONG_VALUE = re.compile(r"(\S{200})\S+")


def scrub_input(text: str) -> str:
    """Return the text of an error without secrets that a user may have put into a wrong place.

    These are long hexadecimal numbers, the user and the password of an address, and the words of a
    mnemonic. Values of more than 200 characters are cut.
    """
    text = scrub(text)
    text = _URL_USER.sub(r"\1[user]@", text)
    text = _WORDS.sub("[words]", text)
    return _LONG_VALUE.sub(r"\1…", text)


class ApiError(Exception):
    """A request to the Chutes API without a usable answer.

    Attributes:
        status: HTTP status of the answer, if it is known. 200 means that its body is wrong.
        retry_after: Seconds after which to retry, if the service says so.
        advice: What the user can do. A single error may have its own.
    """

    reason: ClassVar[str] = "error"
    """A short stable word for metrics and machine-readable output."""
    advice: str = "Look at the exporter's log."

    def __init__(
        self,
        detail: str,
        *,
        status: int | None = None,
        advice: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(scrub(detail))
        self.status = status
        self.retry_after = retry_after
        if advice is not None:
            self.advice = advice

    @property
    def code(self) -> str:
        """The status of a response that is an error, or else the reason."""
        return self.reason if self.status in (None, 200) else str(self.status)


class SignatureRefusedError(ApiError):
    """401: the service does not accept the signature."""

    reason = "signature_refused"
    advice = "Check that the key belongs to the hotkey, and that the local clock is correct."


class NotRegisteredError(ApiError):
    """401: the hotkey has no seat on the subnet."""

    reason = "not_registered"
    advice = (
        "Register the hotkey on subnet 64, or configure another hotkey. Deregistered miners lose "
        "access."
    )


class ForbiddenError(ApiError):
    """403: the proxy in front of the service refuses this client."""

    reason = "forbidden"
    advice = (
        "The proxy in front of the API refuses this machine. Check --api.url, wait, or ask the "
        "operators of Chutes."
    )


class BadRequestError(ApiError):
    """400 or 422: the service does not accept the parameters."""

    reason = "bad_request"
    advice = "Check that the hotkey is a valid SS58 address. If it is, report a bug."


class NotFoundError(ApiError):
    """404: the service does not know the requested object."""

    reason = "not_found"
    advice = (
        "The API does not know it. Check the id or the hotkey, and that --api.url is a Chutes API."
    )


class RateLimitedError(ApiError):
    """429: too many requests."""

    reason = "rate_limited"
    advice = "Wait a while. If this continues, use fewer keys."


class UnavailableError(ApiError):
    """The service cannot be reached or returns 5xx."""

    reason = "unavailable"
    advice = (
        "The API is down or restarts, or this machine cannot reach it. Check the network and "
        "--api.url."
    )


class TimedOutError(ApiError):
    """The answer did not arrive completely in time."""

    reason = "timed_out"
    advice = "The API or the network is slow. Try again, or raise --api.timeout."


class CutOffError(ApiError):
    """The connection closed within the answer, or the answer is empty although it must not be."""

    reason = "cut_off"
    advice = (
        "The API stopped in the middle of its answer. Try again. The exporter retries by itself."
    )


class UndecodableError(ApiError):
    """The answer does not match the API's reference."""

    reason = "undecodable"
    advice = (
        "Check that --api.url is a Chutes API. If it is, its format has changed. Update the "
        "exporter."
    )


class TooLargeError(ApiError):
    """The answer or one of its records is too large."""

    reason = "too_large"
    advice = "Check that --api.url is a Chutes API. If it is, report a bug with the size."


class UnexpectedStatusError(ApiError):
    """The status is not in the API's reference."""

    reason = "unexpected_status"
    advice = "Check that --api.url is a Chutes API, and check the proxies in front of it."


class RedirectedError(ApiError):
    """3xx: redirects are not followed, because signatures go to the configured host only."""

    reason = "redirected"
    advice = "Set --api.url to the address that the API redirects to. Redirects are not followed."


class WrongChainError(ApiError):
    """The node is of another chain."""

    reason = "wrong_chain"
