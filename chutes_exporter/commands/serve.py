"""The command ``serve``: the exporter behind its HTTP server."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click
import structlog

from chutes_exporter import __version__, log
from chutes_exporter.commands.options import (
    Command,
    miner_options,
    serving_options,
    settings_of,
    with_variables,
)
from chutes_exporter.config import ConfigError
from chutes_exporter.page.exporter import Exporter
from chutes_exporter.page.plan import collectors_by_state
from chutes_exporter.web.app import make_app
from chutes_exporter.web.config_file import WebConfig, load_web_config
from chutes_exporter.web.guard import Guard
from chutes_exporter.web.server import bound_address, open_socket, serving, signals

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from chutes_exporter.config import Address, Settings

_log = structlog.get_logger("serve")

_CHECK_INTERVAL = 1.0
"""Seconds between two checks whether the files of the web configuration changed."""
_RESTART_SECONDS = 1.0
"""Seconds after which a failed background task starts again."""


class Service:
    """An exporter behind its server. It is an asynchronous context manager.

    Args:
        read_settings: Makes new settings from the same flags, and reads the files again. None keeps
            the settings.
        is_demo: Whether the private data is invented and needs no protection.

    Attributes:
        settings: Those of the start. A reload changes only those of the exporter.
        addresses: Those on which it listens, with their real ports.
        hang_up: Set it to read the configuration again.
    """

    def __init__(
        self,
        settings: Settings,
        read_settings: Callable[[], Settings] | None = None,
        *,
        is_demo: bool = False,
    ) -> None:
        self.settings = settings
        self.addresses: list[Address] = []
        self.hang_up = asyncio.Event()
        self._is_demo = is_demo
        self._read_settings = read_settings or (lambda: settings)
        self._stack = AsyncExitStack()
        self._exporter = Exporter(settings)
        self._web = WebConfig()
        self._problem = ""  # why the last reload failed
        self._guard = Guard(make_app(self._exporter))

    @property
    def scheme(self) -> str:
        """``http`` or ``https``."""
        return "http" if self._web.context is None else "https"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            exporter = await stack.enter_async_context(self._exporter)
            if self.settings.web_config is not None:
                self._adopt_web(load_web_config(self.settings.web_config))
            sockets = [
                stack.enter_context(open_socket(address)) for address in self.settings.listen
            ]
            self.addresses = [bound_address(listening) for listening in sockets]
            server = serving(self._guard, sockets, context=lambda: self._web.context)
            await stack.enter_async_context(server)
            # At the end, scrapes that wait for the API get what is known.
            stack.push_async_callback(exporter.feeds.aclose)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks = {
                "warm_up": exporter.warm_up,
                "reports": exporter.read_older_reports,
                "reload": self._follow_files,
            }
            for name, task in tasks.items():
                running = group.create_task(self._supervise(name, task))
                # The group waits for its tasks at the end, and some never end by themselves.
                stack.callback(running.cancel)
            self._warn()
            self._announce()
            # Everything has started, and stays open until __aexit__. After an error above, the end
            # of this block closes what has started.
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _supervise(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        failures = self._exporter.telemetry.task_failures.labels(name)
        while True:
            try:
                return await task()
            except Exception:  # noqa: BLE001 - a bug in a task must not end it in silence
                _log.exception("task failed, and starts again", task=name)
                failures.inc()
            await asyncio.sleep(_RESTART_SECONDS)

    async def _reload(self, *, is_asked: bool) -> None:
        """Read hotkey files and the web configuration again. If one fails, use neither.

        A problem is logged when it is new, or when the user asked for the reload.
        """
        # This stays after an error other than ConfigError, which _supervise logs.
        problem = "unforeseen error"
        try:
            settings = self._read_settings()
            # A configuration of 1 MB takes seconds to parse. In a thread, it delays no scrape.
            web = await asyncio.to_thread(self._read_web_config)
            self._adopt_web(web)
            self._exporter.reconfigure(settings)
            _log.info(
                "configuration reloaded", watched=len(settings.watched), keys=len(settings.keys)
            )
            self._warn()
            problem = ""
        except ConfigError as error:
            problem = with_variables(str(error))
            if problem != self._problem or is_asked:
                _log.error("configuration reload failed", reason=problem)
        finally:
            self._problem = problem
            self._exporter.telemetry.reload_good.set(not problem)

    def _adopt_web(self, web: WebConfig) -> None:
        self._web = web
        self._guard.adopt(web)

    def _read_web_config(self) -> WebConfig:
        """Return the web configuration of the file, or raise ConfigError if it cannot be used.

        Without a file, it is the one in use.
        """
        if self.settings.web_config is None:
            return self._web
        web = load_web_config(self.settings.web_config)
        # A file that is being written may look empty, so a reload never switches off TLS or
        # passwords. Nor can it switch on TLS, because the open sockets have none.
        has_tls, had_tls = web.context is not None, self._web.context is not None
        forbidden = ""
        if has_tls != had_tls:
            forbidden = "switch TLS on or off"
        elif self._web.users and not web.users:
            forbidden = "remove all passwords"
        if forbidden:
            raise ConfigError(
                f"{self.settings.web_config}: a reload cannot {forbidden}. Restart the exporter"
            )
        return web

    async def _follow_files(self) -> None:
        """Reload for ever: for SIGHUP, and if the web configuration or a file that it names
        changes.

        Try again after a problem, because a certificate and its key are rarely written at the same
        time.
        """
        while True:
            # Wait for SIGHUP, or for the time of the next check of the files.
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL):
                    await self.hang_up.wait()
            is_asked = self.hang_up.is_set()
            self.hang_up.clear()
            if is_asked or self._problem or self._web.changed():
                await self._reload(is_asked=is_asked)

    def _warn(self) -> None:
        """Log the warnings about the settings in use, and one if other machines can read private
        data, which there is only with a key.
        """
        settings = self._exporter.settings
        for warning in settings.warnings:
            _log.warning("configuration warning", reason=warning)
        reachable = [address for address in self.addresses if not address.is_loopback]
        is_private = bool(settings.keys) and not self._is_demo
        if is_private and reachable and not self._web.is_protected:
            _log.warning(
                "private data is served without protection",
                addresses=" ".join(map(str, reachable)),
                advice="let only trusted clients reach the port, for example with "
                "--web.listen-address 127.0.0.1:10064 outside containers, or set passwords or "
                "client certificates in --web.config.file",
            )

    def _announce(self) -> None:
        settings = self.settings
        collectors = {
            state: " ".join(names) for state, names in collectors_by_state(settings).items()
        }
        _log.info(
            "listening",
            version=__version__,
            addresses=" ".join(map(str, self.addresses)),
            tls=self._web.context is not None,
            api=settings.api_url,
            watched=" ".join(sorted(settings.watched)) or "whole subnet",
            keys=len(settings.keys),
            collectors=collectors.pop("on"),
            # The others by the reason why they are off.
            **collectors,
        )


@click.command(cls=Command)
@miner_options("Without a hotkey, the whole subnet is watched.")
@serving_options(":10064")
def serve(**flags: Any) -> None:
    """Serve metrics of the Chutes API (the default command).

    Without flags it listens on :10064 and exports the whole subnet from the public endpoints.
    """
    read_settings = partial(settings_of, flags)
    settings = read_settings()
    log.configure(flags["log_level"], flags["log_format"])
    asyncio.run(run_serve(settings, read_settings))


async def run_serve(settings: Settings, read_settings: Callable[[], Settings]) -> None:
    """Serve until SIGTERM or SIGINT. SIGHUP reads the configuration again."""
    service = Service(settings, read_settings)
    with signals(service.hang_up.set) as stop:
        async with service:
            await stop.wait()
            _log.info("stopping")
