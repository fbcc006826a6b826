"""One settings object, validated once."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from chutes_exporter import defaults
from chutes_exporter.api.keys import Hotkey, HotkeyError, public_key, readable_by_others
from chutes_exporter.api.meaning import GPU_MODELS
from chutes_exporter.collectors import COLLECTORS
from chutes_exporter.feeds.table import FEEDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from chutes_exporter.collectors import MinersChoice
    from chutes_exporter.feeds.feed import Feed

T = TypeVar("T")

_RESERVED_PATHS = ("/", "/probe", "/sd", "/-/healthy", "/-/ready", "/-/reload")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]*")
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?|[0-9a-f:.]*:[0-9a-f:.]*")
_MAX_PORT = 65535


class ConfigError(ValueError):
    """A setting that cannot be used, with the reason in a sentence."""


_UNIX = "unix:"


@dataclass(frozen=True)
class Address:
    """Where to listen.

    Attributes:
        host: An address or host name; empty for every address, of IPv4 and IPv6.
        port: The port; 0 for any that is free.
        path: Path of a Unix socket, instead of the two.
    """

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``:10064``, ``127.0.0.1:10064``, ``[::1]:10064`` or ``unix:/run/chutes-exporter.sock``.

        Raises:
            ConfigError: The text is none of these.
        """
        if text.startswith(_UNIX):
            path = text.removeprefix(_UNIX)
            if not path.startswith("/") or "\0" in path:
                raise ConfigError(f"{text!r} is no Unix socket: write unix: and an absolute path")
            return cls(path=path)
        host, colon, port = text.rpartition(":")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
            bracketed = True
        else:
            bracketed = False
        valid_port = port.isascii() and port.isdigit() and int(port) <= _MAX_PORT
        if not colon or not valid_port or (":" in host and not bracketed) or "/" in host:
            raise ConfigError(
                f"{text!r} is not an address to listen on: write :10064, 127.0.0.1:10064, [::1]:10064 or unix:/PATH"
            )
        return cls(host, int(port))

    def __str__(self) -> str:
        if self.path:
            return f"{_UNIX}{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """Everything that a run of the exporter depends on.

    Attributes:
        api_url: Base address of the Chutes API.
        api_timeout: Seconds without a byte after which a request to it is given up.
        watched: Hotkeys whose public data is exported; empty for the whole subnet.
        keys: Hotkeys with their seeds, whose private data is exported too; all are in ``watched``.
        listen: Where to listen.
        systemd_socket: Whether systemd has opened the sockets, instead.
        web_config: Path of the web configuration (TLS, passwords); None for none.
        enable_lifecycle: Whether ``POST /-/reload`` is served.
        max_requests: Most scrapes that are answered at once; 0 for any number.
        telemetry_path: Path of the metrics page.
        timeout_offset: Seconds by which an answer comes before the scraper's timeout.
        miners: Which miners' public data is exported besides the watched ones'.
        max_series: Most series that the collectors may have together.
        created_timestamps: Whether OpenMetrics pages have ``_created`` lines.
        freshness: Time to live and maximum age of feeds, in seconds by name, where the user set one of them.
        collectors: Whether a collector is on, by name, where the user said so.
        gpu_costs: What a GPU costs in US dollars an hour, by model.
        daily_emission: Alpha that the subnet's miners get together in a day; None where the user did not say.
        alpha_price: US dollars for one alpha; None where the user did not say.
        warnings: What the user should know about these settings.
    """

    api_url: str = defaults.API_URL
    api_timeout: float = defaults.API_TIMEOUT
    watched: frozenset[str] = frozenset()
    keys: tuple[Hotkey, ...] = ()
    listen: tuple[Address, ...] = (Address("", 10064),)
    systemd_socket: bool = False
    web_config: Path | None = None
    enable_lifecycle: bool = False
    max_requests: int = defaults.MAX_REQUESTS
    telemetry_path: str = defaults.TELEMETRY_PATH
    timeout_offset: float = defaults.TIMEOUT_OFFSET
    miners: MinersChoice = "all"
    max_series: int = defaults.MAX_SERIES
    created_timestamps: bool = False
    freshness: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    collectors: Mapping[str, bool] = field(default_factory=dict)
    gpu_costs: Mapping[str, float] = field(default_factory=dict)
    daily_emission: float | None = None
    alpha_price: float | None = None
    warnings: tuple[str, ...] = ()

    def tuned(self, feed: Feed[T]) -> Feed[T]:
        """Return a feed with the freshness that the user set."""
        known = self.freshness.get(feed.name)
        return feed if known is None else feed.kept(*known)


@dataclass(frozen=True)
class Credentials:
    """The keys that were found, and what is wrong with those that cannot be used.

    Attributes:
        keys: Usable keys, one an address.
        errors: A sentence for each that is not usable.
        warnings: A sentence for each file that others can read.
    """

    keys: tuple[Hotkey, ...]
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def find_credentials(files: Iterable[Path], environment: Mapping[str, str]) -> Credentials:
    """Read hotkey files, and ``MINER_SEED`` with ``MINER_SS58``.

    Args:
        files: Paths of hotkey files.
        environment: The environment variables.
    """
    keys: dict[str, Hotkey] = {}
    errors: list[str] = []
    warnings: list[str] = []
    for path in files:
        try:
            key = Hotkey.from_file(path)
        except HotkeyError as error:
            errors.append(str(error))
            continue
        keys.setdefault(key.address, key)
        if readable_by_others(path):
            warnings.append(f"other users of this machine can read {path}: chmod 600 it")
    seed, address = environment.get("MINER_SEED", "").strip(), environment.get("MINER_SS58", "").strip()
    if seed and not address:
        errors.append("MINER_SEED is set without MINER_SS58, the address that it must belong to")
    elif seed:
        try:
            key = Hotkey.from_seed(seed, address=address, source="MINER_SEED and MINER_SS58")
            keys.setdefault(key.address, key)
        except HotkeyError as error:
            errors.append(str(error))
    elif "MINER_SEED" in environment:
        warnings.append("MINER_SEED is empty: without it only public data is exported")
    return Credentials(tuple(keys.values()), tuple(errors), tuple(warnings))


def make_settings(  # noqa: PLR0913 - one argument a flag
    *,
    api_url: str = defaults.API_URL,
    api_timeout: float = defaults.API_TIMEOUT,
    hotkeys: Iterable[str] = (),
    credentials: Credentials | None = None,
    miner_ss58: str = "",
    listen: Iterable[str] = (defaults.LISTEN_ADDRESS,),
    systemd_socket: bool = False,
    web_config: Path | None = None,
    enable_lifecycle: bool = False,
    max_requests: int = defaults.MAX_REQUESTS,
    telemetry_path: str = defaults.TELEMETRY_PATH,
    timeout_offset: float = defaults.TIMEOUT_OFFSET,
    miners: MinersChoice | None = None,
    max_series: int = defaults.MAX_SERIES,
    created_timestamps: bool = False,
    ttl: Iterable[str] = (),
    max_age: Iterable[str] = (),
    collectors: Mapping[str, bool] | None = None,
    gpu_costs: Iterable[str] = (),
    daily_emission: float | None = None,
    alpha_price: float | None = None,
) -> Settings:
    """Validate what the user configured.

    Args:
        api_url: Base address of the Chutes API.
        api_timeout: Seconds without a byte after which a request to it is given up.
        hotkeys: Addresses to watch.
        credentials: The keys that were found.
        miner_ss58: ``MINER_SS58``: watched too, with or without a seed.
        listen: Addresses to listen on.
        systemd_socket: Whether systemd has opened the sockets, instead.
        web_config: Path of the web configuration; it is read by who serves.
        enable_lifecycle: Whether ``POST /-/reload`` is served.
        max_requests: Most scrapes that are answered at once; 0 for any number.
        telemetry_path: Path of the metrics page.
        timeout_offset: Seconds by which an answer comes before the scraper's timeout.
        miners: Which miners' public data is exported besides the watched ones'; when None, everybody's where no
            hotkey is named, and nobody's otherwise.
        max_series: Most series that the collectors may have together.
        created_timestamps: Whether OpenMetrics pages have ``_created`` lines.
        ttl: ``FEED=SECONDS``: how long an answer of the feed counts as fresh.
        max_age: ``FEED=SECONDS``: the age at which an answer of the feed is dropped.
        collectors: Whether a collector is on, by name.
        gpu_costs: ``MODEL=USD_PER_HOUR``: what the miner pays for one GPU of a model.
        daily_emission: Alpha that the subnet's miners get together in a day.
        alpha_price: US dollars for one alpha.

    Raises:
        ConfigError: Something of it cannot be used; the message says what and why.
    """
    credentials = credentials or Credentials((), (), ())
    if credentials.errors:
        raise ConfigError("; ".join(credentials.errors))
    warnings = list(credentials.warnings)
    watched = {hotkey.strip() for hotkey in (*hotkeys, miner_ss58) if hotkey.strip()}
    for hotkey in watched:
        try:
            public_key(hotkey)
        except HotkeyError as error:
            raise ConfigError(str(error)) from None
    watched |= {key.address for key in credentials.keys}
    if miners == "watched" and not watched:
        raise ConfigError("--miners watched needs somebody to watch: give --hotkey or --hotkey-file")
    url = _validated_url(api_url)
    if url.startswith("http:") and credentials.keys and not _is_loopback(url):
        warnings.append(f"signatures go to {url} without encryption: whoever sees one can use it for 10 minutes")
    _require_usable(collectors or {}, credentials, watched)
    addresses = tuple(Address.parse(text) for text in listen)
    if not _PATH.fullmatch(telemetry_path) or telemetry_path in _RESERVED_PATHS:
        raise ConfigError(
            f"{telemetry_path!r} cannot be the path of the metrics: it starts with /, has letters, digits and -._~/ "
            f"and is none of {', '.join(_RESERVED_PATHS)}"
        )
    if not (math.isfinite(api_timeout) and math.isfinite(timeout_offset)):
        raise ConfigError("--api.timeout and --scrape.timeout-offset must be finite numbers of seconds")
    costs = _gpu_costs(gpu_costs)
    if unknown := sorted(costs.keys() - GPU_MODELS):
        warnings.append(
            f"--gpu.cost names a GPU model that is not known here: {', '.join(unknown)}. "
            f"The known models are {', '.join(GPU_MODELS)}"
        )
    return Settings(
        api_url=url,
        api_timeout=api_timeout,
        watched=frozenset(watched),
        keys=credentials.keys,
        listen=addresses,
        systemd_socket=systemd_socket,
        web_config=web_config,
        enable_lifecycle=enable_lifecycle,
        max_requests=max_requests,
        telemetry_path=telemetry_path,
        timeout_offset=timeout_offset,
        miners=miners or ("watched" if watched else "all"),
        max_series=max_series,
        created_timestamps=created_timestamps,
        freshness=_freshness(ttl, max_age),
        collectors=dict(collectors or {}),
        gpu_costs=costs,
        daily_emission=_figure("--subnet.daily-emission", daily_emission),
        alpha_price=_figure("--alpha.price", alpha_price),
        warnings=tuple(warnings),
    )


def _require_usable(collectors: Mapping[str, bool], credentials: Credentials, watched: set[str]) -> None:
    """Refuse collectors that the user wants and that could bring nothing."""
    for collector in COLLECTORS:
        if collectors.get(collector.name):
            if collector.needs_key and not credentials.keys:
                raise ConfigError(
                    f"--collector.{collector.name} needs a hotkey's seed: "
                    "give --hotkey-file, or MINER_SS58 and MINER_SEED"
                )
            if collector.scope == "miner" and not watched:
                raise ConfigError(
                    f"--collector.{collector.name} needs somebody to watch: give --hotkey or --hotkey-file"
                )


def _freshness(ttl: Iterable[str], max_age: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return the time to live and the maximum age of each feed of which the user set one."""
    fresh, kept = _by_feed("--feed.ttl", ttl), _by_feed("--feed.max-age", max_age)
    found = {}
    for feed in FEEDS:
        if feed.name not in fresh and feed.name not in kept:
            continue
        seconds = fresh.get(feed.name, feed.ttl)
        # A longer time to live also keeps answers for that long.
        bound = kept.get(feed.name, max(feed.max_age, seconds))
        if bound < seconds:
            raise ConfigError(
                f"--feed.max-age {feed.name}={bound:g} is less than the feed's time to live, {seconds:g} s: "
                "answers would be dropped while they are fresh"
            )
        found[feed.name] = seconds, bound
    return found


def _by_feed(flag: str, texts: Iterable[str]) -> dict[str, float]:
    names = {feed.name for feed in FEEDS}
    found = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            seconds = float(number)
        except ValueError:
            seconds = math.nan
        if name not in names or not 0 <= seconds < math.inf:
            raise ConfigError(f"{flag} {text!r}: write FEED=SECONDS, with a feed of {', '.join(sorted(names))}")
        found[name] = seconds
    return found


def _gpu_costs(texts: Iterable[str]) -> dict[str, float]:
    costs = {}
    for text in texts:
        model, _, number = text.partition("=")
        # The API writes models in lower case.
        model = model.strip().lower()
        try:
            cost = float(number)
        except ValueError:
            cost = math.nan
        if not model or not 0 <= cost < math.inf:
            raise ConfigError(f"--gpu.cost {text!r}: write MODEL=USD_PER_HOUR, for example h100=1.95")
        costs[model] = cost
    return costs


def _figure(flag: str, value: float | None) -> float | None:
    if value is not None and not 0 <= value < math.inf:
        raise ConfigError(f"{flag} must be a finite number that is not negative, and not {value:g}")
    return value


def _validated_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname or "", parts.port
    except ValueError:
        parts, host = urlsplit(""), ""
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(host) or parts.query or parts.fragment:
        # What may hold a password is not repeated.
        shown = "the API's address" if "@" in text else repr(text)
        raise ConfigError(
            f"{shown} is not an address of an API: write https://HOST (or http://), without a query or a fragment"
        )
    if "@" in parts.netloc:
        raise ConfigError("the API's address has a user or a password in it: write https://HOST alone")
    # This also writes the scheme in lower case, as every check of it expects.
    return urlunsplit(parts).rstrip("/")


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
