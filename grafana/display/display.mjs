// What a panel shows for answers of Prometheus, by Grafana's own code: reads requests from standard input, and writes what
// is seen to standard output, both in JSON.
//
// A request is {panel, answers, from, to}: the panel as the dashboard has it, and Prometheus' answers by the query's letter
// (`data` of its HTTP API). What is seen is {texts} of a tile, {columns, rows} of a table, or {series} of lines.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

import { setUp } from './frames.mjs';

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
const replaceVariables = (text) => text;
const { prepare } = setUp(grafana);

const known = new Set(grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value)));

const shown = ({ text, prefix, suffix, color }) => ({
  text: `${prefix ?? ''}${text}${suffix ?? ''}`,
  color: color ?? '',
});

async function see(request) {
  const { panel } = request;
  const units = [panel.fieldConfig.defaults, ...panel.fieldConfig.overrides.map((one) =>
    Object.fromEntries(one.properties.map(({ id, value }) => [id, value])))]
    .map((config) => config.unit).filter(Boolean);
  const unknown = units.filter((unit) => !known.has(unit) && !/^(prefix|suffix|time):/.test(unit));
  const { data, fieldConfig } = await prepare(request, { theme, timeZone, replaceVariables });
  const empty = panel.fieldConfig.defaults.noValue;
  if (panel.type === 'stat') {
    const values = grafana.getFieldDisplayValues({
      data,
      fieldConfig,
      reduceOptions: panel.options.reduceOptions,
      replaceVariables,
      theme,
      timeZone,
    });
    return { unknown, texts: values.map(({ display }) => ({ ...shown(display), title: display.title ?? '' })) };
  }
  if (panel.type === 'table') {
    const [frame] = data;
    const fields = frame?.fields ?? [];
    if (data.length > 1) {
      throw new Error(`${panel.title}: ${data.length} tables`);
    }
    const columns = fields.map((field) => grafana.getFieldDisplayName(field, frame));
    const order = [...Array(frame?.length ?? 0).keys()];
    // As Grafana's table: missing values are the least.
    const keys = (panel.options.sortBy ?? []).map(({ displayName, desc }) => {
      const values = fields[columns.indexOf(displayName)]?.values ?? [];
      return { value: (row) => values[row] ?? -Infinity, sign: desc ? -1 : 1 };
    });
    const compare = (a, b) => (a > b ? 1 : a < b ? -1 : 0);
    order.sort((a, b) => keys.reduce((found, { value, sign }) => found || sign * compare(value(a), value(b)), 0));
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
