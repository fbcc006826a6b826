"""The HTTP API of the service: one client, keys, decoders, records and errors."""
