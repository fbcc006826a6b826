"""The feeds: what is requested from the API, how, and how fresh it is kept."""
