"""The Grafana dashboards, as code: `python -m grafana` (`make generate`) writes the JSON in
`dashboards/`.
"""
