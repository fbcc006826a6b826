from __future__ import annotations

import subprocess
import sys

from chutes_exporter import defaults
from chutes_exporter.config import Address, Settings, make_settings

IMPORTED = """
import sys
before = set(sys.modules)
import chutes_exporter.defaults
print(*(set(sys.modules) - before - sys.stdlib_module_names))
"""


def test_settings_without_flags_are_the_defaults() -> None:
    settings = make_settings()
    assert settings == Settings()
    assert settings.listen == (Address.parse(defaults.LISTEN_ADDRESS),)
    assert (settings.api_url, settings.api_timeout) == (defaults.API_URL, defaults.API_TIMEOUT)
    assert (settings.telemetry_path, settings.timeout_offset) == (defaults.TELEMETRY_PATH, defaults.TIMEOUT_OFFSET)
    assert (settings.max_series, settings.max_requests) == (defaults.MAX_SERIES, defaults.MAX_REQUESTS)


def test_the_help_reads_the_defaults_without_importing_what_they_configure() -> None:
    result = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True)
    assert set(result.stdout.split()) == {"chutes_exporter", "chutes_exporter.defaults"}
