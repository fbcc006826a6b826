"""The README, followed word for word in a new Debian."""
