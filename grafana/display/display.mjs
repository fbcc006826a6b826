// What a panel shows for answers of Prometheus, by Grafana's own code: reads requests from standard input, and writes what
// is seen to standard output, both in JSON.
//
// A request is {panel, answers, from, to}: the panel as the dashboard has it, and Prometheus' answers by the query's letter
// (`data` of its HTTP API). What is seen is {texts} of a tile, {columns, rows} of a table, or {series} of lines.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

// The package is made for browsers.
globalThis.window = globalThis;
Object.defineProperty(globalThis, 'navigator', {
  value: { language: 'en-US', languages: ['en-US'] },
  configurable: true,
});
const grafana = createRequire(import.meta.url)('@grafana/data');
const { FieldType } = grafana;
const theme = grafana.createTheme({ colors: { mode: 'dark' } });
const timeZone = 'utc';

// The names of panels' options, as Grafana's panels register them; the values are taken as they are.
const option = (id, custom) => ({
  id: custom ? `custom.${id}` : id,
  path: id,
  name: id,
  isCustom: custom,
  process: grafana.identityOverrideProcessor,
  override: grafana.identityOverrideProcessor,
  editor: () => null,
  shouldApply: () => true,
});
const standard = ['unit', 'min', 'max', 'decimals', 'displayName', 'noValue', 'thresholds', 'mappings', 'links', 'color', 'filterable'];
const custom = ['cellOptions', 'width'];
grafana.standardFieldConfigEditorRegistry.setInit(() => standard.map((id) => option(id, false)));
const registry = new grafana.FieldConfigOptionsRegistry(() => [
  ...standard.map((id) => option(id, false)),
  ...custom.map((id) => option(id, true)),
]);
// Some have a second name.
const transformers = new Map(Object.values(grafana.standardTransformers).map((one) => [one.id, one]));
grafana.standardTransformersRegistry.setInit(() =>
  [...transformers.values()].map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation,
    editor: () => null,
  }))
);
const known = new Set(grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value)));

const number = (text) => (text === 'NaN' ? NaN : Number(text.replace('Inf', 'Infinity')));

const legend = (format, labels) => {
  if (format === '__auto') {
    return Object.entries(labels).map(([label, value]) => `${label}="${value}"`).join(', ') || 'Value';
  }
  return format.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, label) => labels[label] ?? '');
};

// As the data source makes them of answers: a table for each query that asks for one, else a frame a series.
function frames({ panel, answers }) {
  return panel.targets.flatMap((target) => {
    const result = answers[target.refId].result;
    if (target.format === 'table') {
      const labels = [...new Set(result.flatMap((one) => Object.keys(one.metric)))].sort();
      const value = panel.targets.length > 1 ? `Value #${target.refId}` : 'Value';
      return grafana.toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: result.map((one) => one.value[0] * 1000) },
          ...labels.map((label) => ({
            name: label,
            type: FieldType.string,
            values: result.map((one) => one.metric[label] ?? ''),
          })),
          { name: value, type: FieldType.number, values: result.map((one) => number(one.value[1])) },
        ],
      });
    }
    return result.map((one) => {
      const points = one.values ?? [one.value];
      const name = legend(target.legendFormat, one.metric);
      return grafana.toDataFrame({
        refId: target.refId,
        fields: [
          { name: 'Time', type: FieldType.time, values: points.map(([time]) => time * 1000) },
          {
            name: 'Value',
            type: FieldType.number,
            labels: one.metric,
            config: { displayNameFromDS: name },
            values: points.map(([, value]) => number(value)),
          },
        ],
      });
    });
  });
}

const transformed = (panel, data) =>
  new Promise((resolve, reject) =>
    grafana
      .transformDataFrame(panel.transformations ?? [], data, { interpolate: (text) => text })
      .subscribe({ next: resolve, error: reject })
  );

const shown = ({ text, prefix, suffix, color }) => ({
  text: `${prefix ?? ''}${text}${suffix ?? ''}`,
  color: color ?? '',
});

async function see(request) {
  const { panel } = request;
  const units = [panel.fieldConfig.defaults, ...panel.fieldConfig.overrides.map((one) =>
    Object.fromEntries(one.properties.map(({ id, value }) => [id, value])))]
    .map((config) => config.unit).filter(Boolean);
  const unknown = units.filter((unit) => !known.has(unit));
  const data = grafana.applyFieldOverrides({
    data: await transformed(panel, frames(request)),
    fieldConfig: panel.fieldConfig,
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone,
  });
  const empty = panel.fieldConfig.defaults.noValue;
  if (panel.type === 'stat') {
    const values = grafana.getFieldDisplayValues({
      data,
      fieldConfig: panel.fieldConfig,
      reduceOptions: panel.options.reduceOptions,
      replaceVariables: (text) => text,
      theme,
      timeZone,
    });
    return { unknown, texts: values.map(({ display }) => shown(display)) };
  }
  if (panel.type === 'table') {
    const [frame] = data;
    const fields = frame?.fields ?? [];
    if (data.length > 1) {
      throw new Error(`${panel.title}: ${data.length} tables`);
    }
    const columns = fields.map((field) => grafana.getFieldDisplayName(field, frame));
    const order = [...Array(frame?.length ?? 0).keys()];
    for (const { displayName, desc } of panel.options.sortBy ?? []) {
      const field = fields[columns.indexOf(displayName)];
      const key = (row) => field?.values[row];
      order.sort((a, b) => (desc ? -1 : 1) * (key(a) > key(b) ? 1 : key(a) < key(b) ? -1 : 0));
    }
    const cell = (field, row) => {
      const display = shown(field.display(field.values[row]));
      const colored = field.config.custom?.cellOptions?.type === 'color-text';
      return { ...display, color: colored ? display.color : '', value: field.values[row] ?? null };
    };
    return {
      unknown,
      empty,
      columns,
      widths: fields.map((field) => field.config.custom?.width ?? null),
      rows: order.map((row) => fields.map((field) => cell(field, row))),
    };
  }
  const series = data.flatMap((frame) => {
    const field = frame.fields[1];
    return field.values.length === 0
      ? []
      : [{
          name: grafana.getFieldDisplayName(field, frame, data),
          color: grafana.getFieldSeriesColor(field, theme).color,
          times: [...frame.fields[0].values],
          values: [...field.values],
        }];
  });
  const stacked = panel.fieldConfig.defaults.custom?.stacking?.mode === 'normal';
  const greatest = (values) => Math.max(0, ...values.filter(Number.isFinite));
  const tops = series.map((one) => greatest(one.values));
  const highest = stacked ? tops.reduce((sum, top) => sum + top, 0) : greatest(tops);
  const scale = grafana.getDisplayProcessor({
    field: { name: 'scale', type: FieldType.number, config: { ...panel.fieldConfig.defaults, color: undefined } },
    theme,
    timeZone,
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => ({ value: part * highest, text: shown(scale(part * highest)).text }));
  return { unknown, empty, stacked, series, ticks };
}

const requests = JSON.parse(readFileSync(0, 'utf8'));
process.stdout.write(JSON.stringify(await Promise.all(requests.map(see))));
