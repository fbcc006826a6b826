// A state timeline. @grafana/ui does not export Grafana's own, so it is drawn here, on the same axes of uPlot.
import { FieldType, formattedValueToString, getFieldDisplayName } from '@grafana/data';
import { AxisPlacement, ScaleDirection, ScaleOrientation } from '@grafana/schema';
import { Pagination, UPlotChart, UPlotConfigBuilder, VizLayout, VizLegend, measureText } from '@grafana/ui';

const FONT_SIZE = 12;
const PAGINATION_HEIGHT = 40;

// The stretches of a row: from when until when it shows which value.
function stretches(time, field, { to, merge }) {
  const times = time.values;
  const step = time.config.interval ?? Infinity;
  const spanned = field.config.custom?.spanNulls === true;
  const found = [];
  times.forEach((start, index) => {
    const value = field.values[index];
    if (value === null || value === undefined || Number.isNaN(value)) {
      return;
    }
    const next = times[index + 1] ?? to;
    // Where samples are missing, nothing is shown.
    const end = spanned || next - start <= step * 1.5 ? next : start + step;
    const display = field.display(value);
    const one = { start, end: Math.min(end, to), text: formattedValueToString(display), color: display.color };
    const last = found.at(-1);
    if (merge && last && last.end === start && last.text === one.text && last.color === one.color) {
      last.end = one.end;
    } else {
      found.push(one);
    }
  });
  return found;
}

function rowsOf(frames, to, merge) {
  return frames.flatMap((frame) => {
    const time = frame.fields.find((field) => field.type === FieldType.time);
    return frame.fields
      .filter((field) => field !== time && !field.config.custom?.hideFrom?.viz)
      .map((field) => ({
        name: getFieldDisplayName(field, frame, frames),
        opacity: (field.config.custom?.fillOpacity ?? 70) / 100,
        line: field.config.custom?.lineWidth ?? 0,
        stretches: stretches(time, field, { to, merge }),
      }));
  });
}

function paint(u, rows, { rowHeight, showValue, alignValue, theme }) {
  const { ctx, bbox } = u;
  const ratio = devicePixelRatio;
  const row = bbox.height / rows.length;
  const tall = row * rowHeight;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.font = `${FONT_SIZE * ratio}px ${theme.typography.fontFamily}`;
  ctx.textBaseline = 'middle';
  rows.forEach((one, index) => {
    const top = Math.round(bbox.top + row * index + (row - tall) / 2);
    for (const { start, end, text, color } of one.stretches) {
      const left = Math.max(bbox.left, Math.round(u.valToPos(start, 'x', true)));
      const width = Math.round(u.valToPos(end, 'x', true)) - left;
      ctx.globalAlpha = one.opacity;
      ctx.fillStyle = color;
      ctx.fillRect(left, top, width, Math.round(tall));
      ctx.globalAlpha = 1;
      if (one.line > 0) {
        ctx.strokeStyle = color;
        ctx.lineWidth = one.line * ratio;
        ctx.strokeRect(left, top, width, Math.round(tall));
      }
      const needed = (measureText(text, FONT_SIZE).width + 10) * ratio;
      const fits = needed <= width && tall >= (FONT_SIZE + 2) * ratio;
      if (showValue === 'always' || (showValue === 'auto' && fits)) {
        ctx.fillStyle = theme.colors.getContrastText(color, 3);
        ctx.textAlign = alignValue;
        const at = { left: left + 5 * ratio, center: left + width / 2, right: left + width - 5 * ratio }[alignValue];
        ctx.fillText(text, at, top + tall / 2);
      }
    }
  });
  ctx.restore();
}

function configOf(rows, options, { theme, timeZone, range }) {
  const builder = new UPlotConfigBuilder(timeZone);
  builder.addScale({
    scaleKey: 'x',
    isTime: true,
    orientation: ScaleOrientation.Horizontal,
    direction: ScaleDirection.Right,
    range: [range.from.valueOf(), range.to.valueOf()],
  });
  builder.addScale({
    scaleKey: 'y',
    isTime: false,
    orientation: ScaleOrientation.Vertical,
    direction: ScaleDirection.Up,
    range: [0, 1],
  });
  builder.addAxis({ scaleKey: 'x', isTime: true, placement: AxisPlacement.Bottom, timeZone, theme, grid: { show: true } });
  builder.addAxis({
    scaleKey: 'y',
    isTime: false,
    placement: AxisPlacement.Left,
    splits: () => rows.map((_, index) => 1 - (index + 0.5) / rows.length),
    values: () => rows.map((row) => row.name),
    grid: { show: false },
    ticks: { show: false },
    gap: 15,
    theme,
  });
  builder.addSeries({ scaleKey: 'y', pathBuilder: () => null, pointsBuilder: () => undefined, show: true, theme });
  const look = { rowHeight: options.rowHeight ?? 0.9, showValue: options.showValue ?? 'auto', alignValue: options.alignValue ?? 'left' };
  builder.addHook('draw', (u) => paint(u, rows, { ...look, theme }));
  return builder;
}

function legendOf(rows) {
  const colors = new Map(rows.flatMap((row) => row.stretches.map(({ text, color }) => [text, color])));
  return [...colors].map(([label, color]) => ({ label, color, yAxis: 1 }));
}

export function StateTimeline({ frames, options, width, height, theme, timeZone, range }) {
  const all = rowsOf(frames, range.to.valueOf(), options.mergeValues ?? true);
  const perPage = options.perPage ?? 20;
  const pages = Math.ceil(all.length / perPage);
  const rows = all.slice(0, perPage);
  const { showLegend = true, placement = 'bottom', displayMode = 'list' } = options.legend ?? {};
  const legend = showLegend ? (
    <VizLayout.Legend placement={placement}>
      <VizLegend placement={placement} displayMode={displayMode} items={legendOf(all)} readonly />
    </VizLayout.Legend>
  ) : null;
  return (
    <>
      <VizLayout width={width} height={height - (pages > 1 ? PAGINATION_HEIGHT : 0)} legend={legend}>
        {(innerWidth, innerHeight) => (
          <UPlotChart
            config={configOf(rows, options, { theme, timeZone, range })}
            data={[[range.from.valueOf(), range.to.valueOf()], [null, null]]}
            width={innerWidth}
            height={innerHeight}
          />
        )}
      </VizLayout>
      {pages > 1 && (
        <div style={{ display: 'flex', justifyContent: 'center', height: PAGINATION_HEIGHT, paddingTop: 8 }}>
          <Pagination currentPage={1} numberOfPages={pages} onNavigate={() => {}} />
        </div>
      )}
    </>
  );
}
