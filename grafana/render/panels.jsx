// What each kind of panel shows. An unknown kind is an error.
import {
  FieldType, VizOrientation, dateTime, getDisplayProcessor, getDisplayValueAlignmentFactors, getFieldDisplayValues,
  renderMarkdown, sortDataFrame, textUtil,
} from '@grafana/data';
import { BarGauge, BigValue, Table, TimeSeries, VizRepeater } from '@grafana/ui';

import { StateTimeline } from './statetimeline.jsx';

function Empty({ panel, theme }) {
  const style = {
    display: 'flex', alignItems: 'center', justifyContent: 'center', width: '100%', height: '100%', textAlign: 'center',
    color: theme.colors.text.secondary, fontSize: theme.typography.size.lg,
  };
  return <div style={style}>{panel.fieldConfig?.defaults?.noValue ?? 'No data'}</div>;
}

function fieldValues({ data, fieldConfig, options, sparkline, percentChange, theme, timeZone, replaceVariables }) {
  return getFieldDisplayValues({
    data,
    fieldConfig,
    reduceOptions: options.reduceOptions,
    replaceVariables,
    sparkline,
    percentChange,
    theme,
    timeZone,
  });
}

function textMode({ options, data }) {
  if (options.textMode === 'auto' && (options.reduceOptions.values || data.length > 1)) {
    return 'value_and_name';
  }
  return options.textMode;
}

function Stat(props) {
  const { data, options, width, height, theme, range } = props;
  const graphMode = options.graphMode ?? 'area';
  const getValues = () =>
    fieldValues({ ...props, sparkline: graphMode !== 'none', percentChange: options.showPercentChange });
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width: itemWidth, height: itemHeight, alignmentFactors, count }) => {
        const { sparkline } = value;
        if (sparkline) {
          sparkline.timeRange = range;
        }
        return (
          <BigValue
            value={value.display}
            count={count}
            sparkline={sparkline}
            colorMode={options.colorMode ?? 'value'}
            graphMode={graphMode}
            justifyMode={options.justifyMode ?? 'auto'}
            textMode={textMode({ options: { textMode: 'auto', ...options }, data })}
            alignmentFactors={alignmentFactors}
            text={options.text}
            width={itemWidth}
            height={itemHeight}
            theme={theme}
            disableWideLayout={!(options.wideLayout ?? true)}
            percentChangeColorMode={options.percentChangeColorMode}
          />
        );
      }}
      width={width}
      height={height}
      source={data}
      itemSpacing={3}
      renderCounter={1}
      autoGrid
      orientation={options.orientation ?? VizOrientation.Auto}
    />
  );
}

function Bars(props) {
  const { data, options, width, height, theme, timeZone } = props;
  const orientation = options.orientation ?? VizOrientation.Auto;
  return (
    <VizRepeater
      getValues={() => fieldValues(props)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width: itemWidth, height: itemHeight, alignmentFactors, orientation: itemOrientation, count }) => {
        const { field, display, view, colIndex } = value;
        const source = view.dataFrame.fields[colIndex];
        const processor = source.display ?? getDisplayProcessor({ field: source, theme, timeZone });
        return (
          <BarGauge
            // A single bar has no name, as the panel's title names it.
            value={count === 1 && !options.reduceOptions.values ? { ...display, title: undefined } : display}
            width={itemWidth}
            height={itemHeight}
            orientation={itemOrientation}
            field={field}
            text={options.text}
            display={processor}
            theme={theme}
            itemSpacing={10}
            lcdCellWidth={12}
            displayMode={options.displayMode ?? 'gradient'}
            alignmentFactors={alignmentFactors}
            showUnfilled={options.showUnfilled ?? true}
            valueDisplayMode={options.valueMode ?? 'color'}
            namePlacement={options.namePlacement ?? 'auto'}
          />
        );
      }}
      source={data}
      width={width}
      height={height}
      minVizWidth={options.minVizWidth ?? 8}
      minVizHeight={options.minVizHeight ?? 16}
      maxVizHeight={options.maxVizHeight ?? 300}
      renderCounter={1}
      itemSpacing={10}
      orientation={orientation}
    />
  );
}

function Rows({ panel, data, options, width, height, range }) {
  if (data.length > 1) {
    throw new Error(`the transformations leave ${data.length} tables, and a panel shows one`);
  }
  return (
    <Table
      data={data[0]}
      width={width}
      height={height}
      noHeader={!(options.showHeader ?? true)}
      showTypeIcons={options.showTypeIcons}
      initialSortBy={options.sortBy}
      footerOptions={options.footer?.show ? options.footer : undefined}
      enablePagination={options.footer?.enablePagination}
      cellHeight={options.cellHeight}
      timeRange={range}
      fieldConfig={panel.fieldConfig}
      replaceVariables={(text) => text}
    />
  );
}

// Frames that can be drawn over time, sorted, with what is no number missing.
function graphable(data) {
  return data.flatMap((frame) => {
    const time = frame.fields.findIndex((field) => field.type === FieldType.time);
    if (time < 0 || !frame.fields.some((field) => field.type === FieldType.number)) {
      return [];
    }
    const sorted = sortDataFrame(frame, time);
    const fields = sorted.fields.map((field) =>
      field.type === FieldType.number
        ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) }
        : field
    );
    return [{ ...sorted, fields }];
  });
}

function Lines({ data, options, width, height, timeZone, range }) {
  return (
    <TimeSeries
      frames={graphable(data)}
      structureRev={1}
      timeRange={range}
      timeZone={timeZone}
      width={width}
      height={height}
      legend={{ showLegend: true, displayMode: 'list', placement: 'bottom', calcs: [], ...options.legend }}
      options={options}
    />
  );
}

function Text({ options, replaceVariables, theme }) {
  const content = replaceVariables(options.content ?? '');
  const render = {
    markdown: () => renderMarkdown(content),
    html: () => textUtil.sanitize(content),
    code: () => `<pre>${textUtil.escapeHtml(content)}</pre>`,
  }[options.mode ?? 'markdown'];
  if (render === undefined) {
    throw new Error(`unknown kind of text: ${options.mode}`);
  }
  return (
    <div
      className="markdown-html"
      style={{ height: '100%', overflow: 'hidden', color: theme.colors.text.primary }}
      dangerouslySetInnerHTML={{ __html: render() }}
    />
  );
}

// Grafana asks Alertmanager or its own alerts. Here, the alerts are those that Prometheus says fire.
function Alerts({ alerts, options, range, theme }) {
  const shown = alerts.filter((one) => (options.alertName ?? '') === '' || one.name.includes(options.alertName));
  const cell = { padding: '6px 8px', borderBottom: `1px solid ${theme.colors.border.weak}`, textAlign: 'left', whiteSpace: 'nowrap' };
  const color = { critical: theme.colors.error.text, warning: theme.colors.warning.text };
  return (
    <div style={{ height: '100%', overflow: 'hidden' }}>
      <table style={{ width: '100%', borderCollapse: 'collapse' }}>
        <tbody>
          {shown.slice(0, options.maxItems ?? 20).map((one, index) => (
            <tr key={index}>
              <td style={{ ...cell, color: color[one.severity] }}>{one.severity}</td>
              <td style={cell}>{one.name}</td>
              <td style={{ ...cell, color: theme.colors.text.secondary }}>
                firing for {dateTime(range.to).from(dateTime(one.since), true)}
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const KINDS = {
  stat: { show: Stat, always: true },
  bargauge: { show: Bars },
  table: { show: Rows },
  timeseries: { show: Lines, empty: (data) => graphable(data).length === 0 },
  'state-timeline': { show: (props) => <StateTimeline {...props} frames={props.data} /> },
  text: { show: Text, always: true },
  alertlist: { show: Alerts, empty: (_, props) => props.alerts.length === 0 },
};

export const NOT_GRAFANAS = { 'state-timeline': 'State timelines', alertlist: 'Alert lists' };

export function check(panel) {
  if (panel.type !== 'row' && !(panel.type in KINDS)) {
    throw new Error(`unknown kind of panel: ${panel.type}`);
  }
  for (const key of ['libraryPanel', 'repeat', 'timeShift']) {
    if (panel[key]) {
      throw new Error(`panels with "${key}" are not supported`);
    }
  }
  if (panel.type === 'alertlist' && panel.options?.alertInstanceLabelFilter) {
    throw new Error('alert lists with a filter of labels are not supported: use a table of ALERTS');
  }
}

export function Content(props) {
  const { panel, data } = props;
  const { show: Show, always = false, empty } = KINDS[panel.type];
  const nothing = empty ?? ((frames) => frames.every((frame) => frame.fields.length === 0));
  if (!always && nothing(data, props)) {
    return <Empty {...props} />;
  }
  return <Show {...props} />;
}

