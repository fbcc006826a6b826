"""The service's rules that give fields their meaning, as pure functions for feeds, collectors and
commands.

``docs/earnings.md`` explains the rules to users. A function returns None if the result is unknown.
"""
