// What a panel shows for answers of Prometheus, by Grafana's own code: reads requests from standard input, and writes what
// is seen to standard output, both in JSON.
//
// A request is {panel, answers}: the panel as the dashboard has it, and Prometheus' answers by the query's letter (`data` of
// its HTTP API). What is seen is {texts} of a tile, {columns, rows} of a table, or {series} of lines.
import { readFileSync } from 'node:fs';

import { setUp } from './frames.mjs';
import { grafana } from './grafana.mjs';

const options = { theme: grafana.createTheme({ colors: { mode: 'dark' } }), timeZone: 'utc', replaceVariables: (text) => text };
const prepare = setUp(grafana);
const known = new Set(grafana.getValueFormats().flatMap((category) => category.submenu.map((format) => format.value)));

const shown = ({ text, prefix, suffix, color }) => ({ text: `${prefix ?? ''}${text}${suffix ?? ''}`, color: color ?? '' });

function rows(panel, frame) {
  const fields = frame?.fields ?? [];
  const columns = fields.map((field) => grafana.getFieldDisplayName(field, frame));
  // As Grafana's table: missing values are the least.
  const keys = panel.options.sortBy.map(({ displayName, desc }) => {
    const values = fields[columns.indexOf(displayName)]?.values ?? [];
    return { value: (row) => values[row] ?? -Infinity, sign: desc ? -1 : 1 };
  });
  const compare = (a, b) => (a > b ? 1 : a < b ? -1 : 0);
  const order = [...Array(frame?.length ?? 0).keys()];
  order.sort((a, b) => keys.reduce((found, { value, sign }) => found || sign * compare(value(a), value(b)), 0));
  const cell = (field, row) => {
    const display = shown(field.display(field.values[row]));
    return { ...display, color: field.config.custom?.cellOptions?.type === 'color-text' ? display.color : '' };
  };
  return { columns, rows: order.map((row) => fields.map((field) => cell(field, row))) };
}

async function see({ panel, answers }) {
  const config = panel.fieldConfig;
  const properties = config.overrides.flatMap((one) => one.properties).filter(({ id }) => id === 'unit');
  const units = [config.defaults.unit, ...properties.map(({ value }) => value)];
  const unknown = units.filter((unit) => !known.has(unit) && !/^(prefix|time):/.test(unit));
  if (unknown.length > 0) {
    throw new Error(`${panel.title}: unknown units: ${unknown.join(', ')}`);
  }
  const { data, fieldConfig } = await prepare({ panel, answers }, options);
  if (panel.type === 'stat') {
    const values = grafana.getFieldDisplayValues({ data, fieldConfig, reduceOptions: panel.options.reduceOptions, ...options });
    return { texts: values.map(({ display }) => ({ ...shown(display), title: display.title ?? '' })) };
  }
  if (panel.type === 'table') {
    if (data.length > 1) {
      throw new Error(`${panel.title}: ${data.length} tables`);
    }
    return rows(panel, data[0]);
  }
  const lines = data.filter((frame) => frame.length > 0);
  return { series: lines.map((frame) => grafana.getFieldDisplayName(frame.fields[1], frame, data)) };
}

process.stdout.write(JSON.stringify(await Promise.all(JSON.parse(readFileSync(0, 'utf8')).map(see))));
