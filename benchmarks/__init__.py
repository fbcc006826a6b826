"""Measurements of speed, memory and page sizes."""
