"""The HTTP side: routes, the landing page, and the server."""
