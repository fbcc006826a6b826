// A state timeline. @grafana/ui does not export Grafana's own, so it is drawn here, on the same axes of uPlot.
import { FieldType, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend } from '@grafana/ui';

// The stretches of a row: from when until when it shows which value. Where samples are missing, nothing is shown.
function rowOf(frame, frames, to) {
  const time = frame.fields.find((field) => field.type === FieldType.time);
  const field = frame.fields.find((one) => one !== time);
  const step = time.config.interval ?? Infinity;
  const stretches = time.values.map((start, index) => {
    const next = time.values[index + 1] ?? to;
    const display = field.display(field.values[index]);
    const end = Math.min(next - start <= step * 1.5 ? next : start + step, to);
    return { start, end, text: formattedValueToString(display), color: display.color };
  });
  return { name: getFieldDisplayName(field, frame, frames), opacity: field.config.custom.fillOpacity / 100, stretches };
}

function paint({ ctx, bbox, valToPos }, rows, rowHeight) {
  const row = bbox.height / rows.length;
  const at = (time) => Math.max(bbox.left, Math.round(valToPos(time, 'x', true)));
  ctx.save();
  rows.forEach((one, index) => {
    ctx.globalAlpha = one.opacity;
    const top = Math.round(bbox.top + row * (index + (1 - rowHeight) / 2));
    for (const { start, end, color } of one.stretches) {
      ctx.fillStyle = color;
      ctx.fillRect(at(start), top, at(end) - at(start), Math.round(row * rowHeight));
    }
  });
  ctx.restore();
}

function configOf(rows, rowHeight, { theme, timeZone, range }) {
  const builder = new UPlotConfigBuilder(timeZone);
  const times = { orientation: ScaleOrientation.Horizontal, direction: ScaleDirection.Right, range: [range.from.valueOf(), range.to.valueOf()] };
  const places = { orientation: ScaleOrientation.Vertical, direction: ScaleDirection.Up, range: [0, 1] };
  builder.addScale({ scaleKey: 'x', isTime: true, ...times });
  builder.addScale({ scaleKey: 'y', isTime: false, ...places });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme, grid: { show: true } });
  const names = { splits: () => rows.map((_, index) => 1 - (index + 0.5) / rows.length), values: () => rows.map((row) => row.name) };
  const plain = { grid: { show: false }, ticks: { show: false }, gap: 15 };
  builder.addAxis({ scaleKey: 'y', isTime: false, placement: AxisPlacement.Left, theme, ...names, ...plain });
  builder.addSeries({ scaleKey: 'y', pathBuilder: () => null, pointsBuilder: () => undefined, show: true, theme });
  builder.addHook('draw', (u) => paint(u, rows, rowHeight));
  return builder;
}

export function StateTimeline({ data, options, width, height, ...shared }) {
  const { from, to } = shared.range;
  const rows = data.map((frame) => rowOf(frame, data, to.valueOf()));
  const colors = new Map(rows.flatMap((row) => row.stretches.map(({ text, color }) => [text, color])));
  const items = [...colors].map(([label, color]) => ({ label, color, yAxis: 1 }));
  const { placement, displayMode } = options.legend;
  const legend = <VizLayout.Legend placement={placement}><VizLegend {...{ placement, displayMode, items }} readonly /></VizLayout.Legend>;
  const times = [[from.valueOf(), to.valueOf()], [null, null]];
  return (
    <VizLayout width={width} height={height} legend={legend}>
      {(inner, tall) => <UPlotChart config={configOf(rows, options.rowHeight, shared)} data={times} width={inner} height={tall} />}
    </VizLayout>
  );
}
