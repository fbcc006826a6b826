// Makes data frames of Prometheus' answers, as Grafana's data source does, and applies a panel's transformations and field
// options to them. `display.mjs` uses it in Node, and `grafana/render/` in a browser; each passes its own @grafana/data.

const STANDARD = [
  'unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color', 'filterable',
  'description', 'fieldMinMax',
];
const HIDING = ['hideFrom'];
// The field options that each kind of panel has besides the standard ones.
const CUSTOM = {
  stat: HIDING,
  table: ['align', 'cellOptions', 'filterable', 'hidden', 'inspect', 'minWidth', 'width'],
  timeseries: [
    ...HIDING, 'axisBorderShow', 'axisCenteredZero', 'axisColorMode', 'axisGridShow', 'axisLabel', 'axisPlacement', 'axisSoftMax',
    'axisSoftMin', 'axisWidth', 'barAlignment', 'barMaxWidth', 'barWidthFactor', 'drawStyle', 'fillBelowTo', 'fillOpacity',
    'gradientMode', 'insertNulls', 'lineColor', 'lineInterpolation', 'lineStyle', 'lineWidth', 'pointColor', 'pointSize',
    'scaleDistribution', 'showPoints', 'spanNulls', 'stacking', 'thresholdsStyle', 'transform',
  ],
  'state-timeline': [...HIDING, 'fillOpacity', 'insertNulls', 'lineWidth', 'spanNulls'],
};

const number = (text) => (text === 'NaN' ? NaN : Number(text.replace('Inf', 'Infinity')));

// Grafana leaves the name of an automatic legend to its rules for labels. Without labels, it is the query.
function legend({ legendFormat, expr }, labels) {
  if (!legendFormat || legendFormat === '__auto') {
    return Object.keys(labels).length > 0 ? undefined : expr;
  }
  return legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

/**
 * Prepare @grafana/data: which options and transformations exist.
 * @param grafana The package.
 */
export function setUp(grafana) {
  const option = (id, custom) => ({
    id: custom ? `custom.${id}` : id,
    path: id,
    name: id,
    isCustom: custom,
    process: id === 'displayName' ? grafana.displayNameOverrideProcessor : grafana.identityOverrideProcessor,
    override: grafana.identityOverrideProcessor,
    editor: () => null,
    settings: { expandTemplates: true },
    shouldApply: () => true,
  });
  const standard = STANDARD.map((id) => option(id, false));
  grafana.standardFieldConfigEditorRegistry.setInit(() => standard);
  // Some transformers have a second name.
  const transformers = new Map(Object.values(grafana.standardTransformers).map((one) => [one.id, one]));
  grafana.standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((transformation) => ({
      id: transformation.id,
      name: transformation.name,
      transformation,
      editor: () => null,
    }))
  );
  const registries = Object.fromEntries(
    Object.entries(CUSTOM).map(([type, ids]) => [
      type,
      new grafana.FieldConfigOptionsRegistry(() => [...standard, ...ids.map((id) => option(id, true))]),
    ])
  );

  // Grafana asks for no more points than the query's least step allows.
  const spacing = ({ interval }, step) => {
    const [, count, unit] = /^(\d+)([mh])$/.exec(interval ?? '1m');
    return 1000 * Math.max(step, count * { m: 60, h: 3600 }[unit]);
  };

  // One table for each query that asks for one, and otherwise one frame for each series.
  function frames({ targets, answers, step }) {
    const visible = targets.filter((target) => !target.hide);
    return visible.flatMap((target) => {
      const { result } = answers[target.refId];
      const points = (one) => one.values ?? [one.value];
      if (target.format === 'table') {
        const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].sort();
        const rows = result.flatMap((one) => points(one).map(([time, value]) => ({ time, value, labels: one.metric })));
        return grafana.toDataFrame({
          refId: target.refId,
          fields: [
            { name: 'Time', type: grafana.FieldType.time, values: rows.map((row) => row.time * 1000) },
            ...labels.map((label) => ({
              name: label,
              type: grafana.FieldType.string,
              values: rows.map((row) => row.labels[label] ?? ''),
            })),
            {
              name: visible.length > 1 ? `Value #${target.refId}` : 'Value',
              type: grafana.FieldType.number,
              values: rows.map((row) => number(row.value)),
            },
          ],
        });
      }
      return result.map((one) =>
        grafana.toDataFrame({
          refId: target.refId,
          fields: [
            {
              name: 'Time',
              type: grafana.FieldType.time,
              // The step tells where samples are missing.
              config: one.values && step ? { interval: spacing(target, step) } : {},
              values: points(one).map(([time]) => time * 1000),
            },
            {
              name: 'Value',
              type: grafana.FieldType.number,
              labels: one.metric,
              config: { displayNameFromDS: legend(target, one.metric) },
              values: points(one).map(([, value]) => number(value)),
            },
          ],
        })
      );
    });
  }

  const transform = (transformations, data, interpolate) =>
    new Promise((resolve, reject) =>
      grafana.transformDataFrame(transformations, data, { interpolate }).subscribe({ next: resolve, error: reject })
    );

  // JSON has no -Infinity: the first step of a scale has null instead.
  function withScales(value) {
    if (Array.isArray(value)) {
      return value.map(withScales);
    }
    if (value === null || typeof value !== 'object') {
      return value;
    }
    return Object.fromEntries(
      Object.entries(value).map(([key, inner]) =>
        key === 'steps' && Array.isArray(inner)
          ? [key, inner.map((one) => ({ ...one, value: one.value ?? -Infinity }))]
          : [key, withScales(inner)]
      )
    );
  }

  function fieldConfigOf(panel) {
    const config = withScales({ defaults: {}, overrides: [], ...panel.fieldConfig });
    const registry = registries[panel.type];
    const ids = [
      ...Object.keys(config.defaults).filter((id) => id !== 'custom'),
      ...Object.keys(config.defaults.custom ?? {}).map((id) => `custom.${id}`),
      ...config.overrides.flatMap((one) => one.properties.map(({ id }) => id)),
    ];
    const unknown = ids.filter((id) => registry.getIfExists(id) === undefined);
    if (unknown.length > 0) {
      throw new Error(`unknown field options: ${unknown.join(', ')}`);
    }
    return config;
  }

  /**
   * Make the frames of a panel, ready to be shown.
   * @param request `panel` as the dashboard has it, `answers` of Prometheus by the query's letter, `step` in seconds.
   * @param replaceVariables Fills variables in.
   */
  async function prepare({ panel, answers, step }, { theme, timeZone, replaceVariables }) {
    const fieldConfig = fieldConfigOf(panel);
    const made = frames({ targets: panel.targets ?? [], answers, step });
    const data = grafana.applyFieldOverrides({
      data: await transform(panel.transformations ?? [], made, replaceVariables),
      fieldConfig,
      fieldConfigRegistry: registries[panel.type],
      replaceVariables,
      theme,
      timeZone,
    });
    return { data, fieldConfig };
  }

  return { prepare, types: Object.keys(CUSTOM) };
}
