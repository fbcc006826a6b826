"""The Grafana dashboards, as code: `python -m grafana` (`make boards`) writes the JSON in
`dashboards/`.
"""
