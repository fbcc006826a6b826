// What each kind of panel shows. An unknown kind is an error.
import { FieldType, VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues, sortDataFrame } from '@grafana/data';
import { BigValue, Table, TimeSeries, VizRepeater } from '@grafana/ui';

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

const KINDS = {
  stat: { show: Stat, always: true },
  table: { show: Rows },
  timeseries: { show: Lines, empty: (data) => graphable(data).length === 0 },
  'state-timeline': { show: (props) => <StateTimeline {...props} frames={props.data} /> },
};

export const NOT_GRAFANAS = { 'state-timeline': 'State timelines' };

export function check(panel) {
  if (panel.type !== 'row' && !(panel.type in KINDS)) {
    throw new Error(`unknown kind of panel: ${panel.type}`);
  }
  for (const key of ['libraryPanel', 'repeat', 'timeShift']) {
    if (panel[key]) {
      throw new Error(`panels with "${key}" are not supported`);
    }
  }
}

export function Content(props) {
  const { panel, data } = props;
  const { show: Show, always = false, empty } = KINDS[panel.type];
  const nothing = empty ?? ((frames) => frames.every((frame) => frame.fields.length === 0));
  if (!always && nothing(data)) {
    return <Empty {...props} />;
  }
  return <Show {...props} />;
}

