// What each kind of panel shows. An unknown kind is an error.
import { FieldType, VizOrientation, getDisplayValueAlignmentFactors, getFieldDisplayValues } from '@grafana/data';
import { BigValue, Table, TimeSeries, VizRepeater } from '@grafana/ui';

import { StateTimeline } from './statetimeline.jsx';

function Stat({ data, fieldConfig, options, width, height, theme, timeZone, range, replaceVariables }) {
  const { reduceOptions, graphMode } = options;
  const sparkline = graphMode !== 'none';
  const getValues = () => getFieldDisplayValues({ data, fieldConfig, reduceOptions, replaceVariables, sparkline, theme, timeZone });
  const renderValue = ({ value, ...item }) => {
    if (value.sparkline) {
      value.sparkline.timeRange = range;
    }
    return <BigValue {...options} {...item} value={value.display} sparkline={value.sparkline} theme={theme} />;
  };
  return (
    <VizRepeater
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={renderValue}
      width={width}
      height={height}
      source={data}
      itemSpacing={3}
      renderCounter={1}
      autoGrid
      orientation={VizOrientation.Auto}
    />
  );
}

const Rows = ({ panel, data, options, width, height, range, replaceVariables }) => (
  <Table
    data={data[0]}
    width={width}
    height={height}
    initialSortBy={options.sortBy}
    timeRange={range}
    fieldConfig={panel.fieldConfig}
    replaceVariables={replaceVariables}
  />
);

// What is no number is missing.
const numbers = (field) =>
  field.type === FieldType.number ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) } : field;

const Lines = ({ data, options, width, height, timeZone, range }) => (
  <TimeSeries
    frames={data.map((frame) => ({ ...frame, fields: frame.fields.map(numbers) }))}
    structureRev={1}
    timeRange={range}
    timeZone={timeZone}
    width={width}
    height={height}
    legend={options.legend}
    options={options}
  />
);

const KINDS = { stat: Stat, table: Rows, timeseries: Lines, 'state-timeline': StateTimeline };

export function Content(props) {
  const { panel, data, theme } = props;
  const Show = KINDS[panel.type];
  if (panel.type !== 'stat' && data.every((frame) => frame.fields.length === 0)) {
    const style = { display: 'grid', placeItems: 'center', height: '100%', textAlign: 'center', color: theme.colors.text.secondary };
    return <div style={style}>{panel.fieldConfig.defaults.noValue}</div>;
  }
  return <Show {...props} />;
}
