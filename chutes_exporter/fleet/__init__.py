"""A miner's fleet, joined from the answers that ``feeds/fleet.py`` collects, which keeps it."""
