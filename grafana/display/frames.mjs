// Makes data frames of Prometheus' answers, as Grafana's data source does, and applies a panel's transformations and field
// options to them. `display.mjs` uses it in Node, and `grafana/render/` in a browser; each passes its own @grafana/data.

const number = (text) => (text === 'NaN' ? NaN : Number(text.replace('Inf', 'Infinity')));

// Grafana leaves the name of an automatic legend to its rules for labels. Without labels, it is the query.
function legend({ legendFormat, expr }, labels) {
  if (legendFormat === '__auto') {
    return Object.keys(labels).length > 0 ? undefined : expr;
  }
  return legendFormat.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
}

// JSON has no -Infinity: the first step of a scale has null instead.
const withScales = (config) =>
  JSON.parse(JSON.stringify(config), (key, value) =>
    key === 'steps' ? value.map((step) => ({ ...step, value: step.value ?? -Infinity })) : value
  );

// The field options that a panel sets.
const optionsOf = ({ defaults: { custom, ...standard }, overrides }) =>
  new Set([
    ...Object.keys(standard),
    ...Object.keys(custom ?? {}).map((id) => `custom.${id}`),
    ...overrides.flatMap((one) => one.properties.map(({ id }) => id)),
  ]);

/**
 * Return the function that makes the frames of a panel, ready to be shown.
 * @param grafana The package @grafana/data.
 */
export function setUp(grafana) {
  const { FieldType } = grafana;
  const process = grafana.identityOverrideProcessor;
  const option = (id) => {
    const path = id.replace('custom.', '');
    const rest = { editor: () => null, settings: { expandTemplates: true }, shouldApply: () => true };
    return { id, path, name: id, isCustom: path !== id, process, override: process, ...rest };
  };
  // Grafana 13 calls what is registered, and waits for the transformer. Grafana 11 reads it.
  const asBoth = (one) => Object.defineProperties(async () => one, Object.getOwnPropertyDescriptors(one));
  // Some transformers have a second name.
  const transformers = new Map(Object.values(grafana.standardTransformers).map((one) => [one.id, one]));
  grafana.standardTransformersRegistry.setInit(() =>
    [...transformers.values()].map((one) => ({ id: one.id, name: one.name, transformation: asBoth(one), editor: () => null }))
  );
  // Grafana asks for no more points than the query's least step allows. The step tells where samples are missing.
  function spacing({ interval }, step) {
    const [, count, unit] = /^(\d+)([mh])$/.exec(interval);
    return 1000 * Math.max(step, count * { m: 60, h: 3600 }[unit]);
  }

  const frame = (refId, times, ...fields) =>
    grafana.toDataFrame({ refId, fields: [{ name: 'Time', type: FieldType.time, ...times }, ...fields] });

  function tableOf(target, rows, name) {
    const labels = [...new Set(rows.flatMap((row) => Object.keys(row.metric)))].sort();
    return frame(
      target.refId,
      { values: rows.map((row) => row.value[0] * 1000) },
      ...labels.map((label) => ({ name: label, type: FieldType.string, values: rows.map((row) => row.metric[label] ?? '') })),
      { name, type: FieldType.number, values: rows.map((row) => number(row.value[1])) }
    );
  }

  function lineOf(target, row, step) {
    const points = row.values ?? [row.value];
    return frame(
      target.refId,
      { config: row.values && step ? { interval: spacing(target, step) } : {}, values: points.map(([time]) => time * 1000) },
      {
        name: 'Value', type: FieldType.number, labels: row.metric, config: { displayNameFromDS: legend(target, row.metric) },
        values: points.map(([, value]) => number(value)),
      }
    );
  }

  const transform = (transformations, data, interpolate) =>
    new Promise((resolve, reject) =>
      grafana.transformDataFrame(transformations, data, { interpolate }).subscribe({ next: resolve, error: reject })
    );

  /**
   * Make the frames of a panel, ready to be shown.
   * @param request `panel` as the dashboard has it, `answers` of Prometheus by the query's letter, `step` in seconds.
   * @param replaceVariables Fills variables in.
   */
  return async function prepare({ panel, answers, step }, { theme, timeZone, replaceVariables }) {
    const fieldConfig = withScales({ overrides: [], ...panel.fieldConfig });
    const fieldConfigRegistry = new grafana.FieldConfigOptionsRegistry(() => [...optionsOf(fieldConfig)].map(option));
    const value = ({ refId }) => (panel.targets.length > 1 ? `Value #${refId}` : 'Value');
    const made = panel.targets.flatMap((target) => {
      const { result } = answers[target.refId];
      return target.format === 'table' ? tableOf(target, result, value(target)) : result.map((row) => lineOf(target, row, step));
    });
    const data = await transform(panel.transformations ?? [], made, replaceVariables);
    const options = { fieldConfig, fieldConfigRegistry, replaceVariables, theme, timeZone };
    return { data: grafana.applyFieldOverrides({ data, ...options }), fieldConfig };
  };
}
