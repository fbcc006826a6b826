"""The chain: storage keys, requests to a node, seats and income."""
