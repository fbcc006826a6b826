"""A day that the service's own code lived, answered again as the service did."""
