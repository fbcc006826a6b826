"""Default settings. ``--help`` shows them without importing the modules that use them."""

ENV_PREFIX = "CHUTES_EXPORTER_"
API_URL = "https://api.chutes.ai"
API_TIMEOUT = 20.0
LISTEN_ADDRESS = ":10064"
DEMO_LISTEN_ADDRESS = "127.0.0.1:10064"
TELEMETRY_PATH = "/metrics"
TIMEOUT_OFFSET = 0.5
MAX_SERIES = 100_000
MAX_REQUESTS = 64
