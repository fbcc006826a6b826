"""A day that the service's public code lived, answered again as the service did.

Its 41 chutes, 24 miners and 60 servers are invented, and so are their names and keys.
"""
