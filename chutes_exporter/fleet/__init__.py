"""A miner's fleet, joined once from the answers of the API."""
