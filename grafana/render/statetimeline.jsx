// A state timeline. @grafana/ui does not export Grafana's own.
import { FieldType, dateTimeFormat, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { VizLayout, VizLegend } from '@grafana/ui';

const CHARACTER = 6.7;
const GAP = 12;
const TIMES = 20;
const TICK = 2 * 3600e3;

// From when until when a row shows which value. Where samples are missing, nothing is shown.
function stretchesOf(frame, frames, to) {
  const [time, field] = frame.fields;
  const step = time.config.interval;
  const stretches = time.values.map((start, index) => {
    const next = time.values[index + 1] ?? to;
    const display = field.display(field.values[index]);
    return { start, end: next - start <= step * 1.5 ? next : start + step, text: formattedValueToString(display), color: display.color };
  });
  return { name: getFieldDisplayName(field, frame, frames), stretches };
}

export function StateTimeline({ data, options, width, height, theme, timeZone, range }) {
  const [from, to] = [range.from.valueOf(), range.to.valueOf()];
  const rows = data.map((frame) => stretchesOf(frame, data, to));
  const names = Math.max(...rows.map(({ name }) => name.length)) * CHARACTER + GAP;
  const colors = new Map(rows.flatMap((row) => row.stretches.map(({ text, color }) => [text, color])));
  const items = [...colors].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const { placement, displayMode } = options.legend;
  const legend = <VizLayout.Legend placement={placement}><VizLegend {...{ placement, displayMode, items }} readonly /></VizLayout.Legend>;
  const left = (time) => `${(100 * (time - from)) / (to - from)}%`;
  const at = (start, end, style) => ({ position: 'absolute', left: left(start), right: `calc(100% - ${left(end)})`, ...style });
  const ticks = [...Array((to - from) / TICK).keys()].map((count) => from + count * TICK);
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(inner, tall) => {
        const row = (tall - TIMES) / rows.length;
        return (
          <div style={{ width: inner, height: tall, paddingLeft: names, fontSize: 12, color: theme.colors.text.primary }}>
            {rows.map(({ name, stretches }) => (
              <div key={name} style={{ position: 'relative', height: row, lineHeight: `${row}px` }}>
                <span style={{ position: 'absolute', right: '100%', paddingRight: GAP, whiteSpace: 'nowrap' }}>{name}</span>
                {stretches.map(({ start, end, color }) => (
                  <i key={start} style={at(start, end, { background: color, top: '10%', height: `${100 * options.rowHeight}%` })} />
                ))}
              </div>
            ))}
            <div style={{ position: 'relative', height: TIMES }}>
              {ticks.map((time) => <span key={time} style={at(time, to)}>{dateTimeFormat(time, { format: 'HH:mm', timeZone })}</span>)}
            </div>
          </div>
        );
      }}
    </VizLayout>
  );
}
