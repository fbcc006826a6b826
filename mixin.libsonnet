// The rules and dashboards for Jsonnet, as monitoring mixins have them (https://monitoring.mixins.dev).
local groups(text) = { groups+: std.parseYaml(text).groups };
{
  prometheusAlerts+:: groups(importstr 'prometheus/rules/alerts.yml'),
  prometheusRules+:: groups(importstr 'prometheus/rules/recordings.yml'),
  grafanaDashboards+:: {
    'chutes-exporter.json': import 'grafana/dashboards/chutes-exporter.json',
    'chutes-fleet.json': import 'grafana/dashboards/chutes-fleet.json',
    'chutes-instances.json': import 'grafana/dashboards/chutes-instances.json',
    'chutes-market.json': import 'grafana/dashboards/chutes-market.json',
    'chutes-overview.json': import 'grafana/dashboards/chutes-overview.json',
    'chutes-subnet.json': import 'grafana/dashboards/chutes-subnet.json',
  },
}
