// A dashboard as a page: `window.draw(request)` shows it, and returns what is wrong with it.
//
// A request is {dashboard, answers, step, variables, range, width, open}: the dashboard as it is committed; by panel and
// query, the answers of Prometheus; their step in seconds; the texts of the variables; `from` and `to` in milliseconds; the
// width in pixels; whether collapsed rows are opened.
import * as grafana from '@grafana/data';
import { GlobalStyles, Icon, PanelChrome } from '@grafana/ui';
import { Component } from 'react';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';

import { setUp } from '../display/frames.mjs';
import { layOut } from './layout.mjs';
import { Content, NOT_GRAFANAS, check } from './panels.jsx';

const PADDING = 16;
const timeZone = 'utc';
const theme = grafana.createTheme({ colors: { mode: 'dark' } });
const { prepare } = setUp(grafana);
grafana.locationUtil.initialize({
  config: { appSubUrl: '' },
  getVariablesUrlParams: () => ({}),
  getTimeRangeForUrl: () => ({ from: 'now-24h', to: 'now' }),
});

// Fills in the dashboard's variables, and what is known of the field. Links keep what they carry over.
const replacer = (variables) => (text, scopedVars) =>
  text.replace(/\$\{([\w.]+)(?::\w+)?\}|\$(\w+)/g, (all, braced, plain) => {
    const name = braced ?? plain;
    const { field, frame, data } = scopedVars?.__dataContext?.value ?? {};
    if (field && name.startsWith('__field.labels.')) {
      return field.labels?.[name.slice('__field.labels.'.length)] ?? '';
    }
    if (field && name === '__field.displayName') {
      return grafana.getFieldDisplayName(field, frame, data);
    }
    return variables[name]?.text ?? all;
  });

class Guard extends Component {
  state = { failed: false };

  static getDerivedStateFromError() {
    return { failed: true };
  }

  componentDidCatch(error) {
    this.props.onError(error);
  }

  render() {
    return this.state.failed ? null : this.props.children;
  }
}

function Control({ label, children }) {
  const box = {
    display: 'inline-flex', alignItems: 'center', height: 32, padding: '0 8px', maxWidth: 360, overflow: 'hidden', whiteSpace: 'nowrap',
    textOverflow: 'ellipsis', border: `1px solid ${theme.components.input.borderColor}`, gap: 6,
  };
  return (
    <span style={{ display: 'inline-flex' }}>
      {label && <span style={{ ...box, background: theme.colors.background.secondary, borderRight: 0 }}>{label}</span>}
      <span style={{ ...box, background: theme.components.input.background }}>{children}</span>
    </span>
  );
}

function Toolbar({ dashboard, variables }) {
  const shown = dashboard.templating.list.filter((variable) => variable.hide !== 2);
  const row = { display: 'flex', flexWrap: 'wrap', gap: 8, alignItems: 'center' };
  return (
    <header style={{ padding: `12px ${PADDING}px 8px` }}>
      <div style={{ ...row, justifyContent: 'space-between', marginBottom: 12 }}>
        <h1 style={{ fontSize: 18, margin: 0 }}>{dashboard.title}</h1>
        <span style={row}>
          <Control>
            <Icon name="clock-nine" />
            {grafana.rangeUtil.describeTimeRange(dashboard.time, timeZone)} <span style={{ color: theme.v1.palette.orange }}>UTC</span>
          </Control>
          {dashboard.refresh && (
            <Control>
              <Icon name="sync" />
              {dashboard.refresh}
            </Control>
          )}
        </span>
      </div>
      <div style={{ ...row, justifyContent: 'space-between' }}>
        <span style={row}>
          {shown.map((variable) => (
            <Control key={variable.name} label={variable.hide === 1 ? '' : variable.label || variable.name}>
              {variables[variable.name].text}
              <Icon name="angle-down" />
            </Control>
          ))}
        </span>
        <span style={row}>
          {(dashboard.links ?? []).map((link) => (
            <Control key={link.title}>
              <Icon name="apps" size="sm" />
              {link.title}
            </Control>
          ))}
        </span>
      </div>
    </header>
  );
}

function Row({ panel, replaceVariables }) {
  const count = panel.collapsed ? panel.panels.length : 0;
  return (
    <div style={{ display: 'flex', alignItems: 'center', height: 30, gap: 4, fontSize: 16, fontWeight: 500 }}>
      <Icon name={panel.collapsed ? 'angle-right' : 'angle-down'} />
      {replaceVariables(panel.title)}
      {count > 0 && (
        <span style={{ color: theme.colors.text.secondary, fontSize: 12, fontWeight: 400, fontStyle: 'italic', marginLeft: 8 }}>
          ({count} {count === 1 ? 'panel' : 'panels'})
        </span>
      )}
    </div>
  );
}

function Panel({ one, width, height, shared, onError }) {
  const { panel } = one;
  if (panel.type === 'row') {
    return <Row panel={panel} replaceVariables={shared.replaceVariables} />;
  }
  return (
    <PanelChrome
      title={shared.replaceVariables(panel.title ?? '')}
      description={panel.description}
      width={width}
      height={height}
      displayMode={panel.transparent ? 'transparent' : 'default'}
      hoverHeader={!panel.title}
      padding={panel.type === 'table' ? 'none' : 'md'}
    >
      {(innerWidth, innerHeight) => (
        <Guard onError={onError}>
          <Content
            {...shared}
            panel={panel}
            options={panel.options ?? {}}
            data={one.data}
            fieldConfig={one.fieldConfig}
            width={innerWidth}
            height={innerHeight}
          />
        </Guard>
      )}
    </PanelChrome>
  );
}

function note(placed) {
  const drawn = [...new Set(placed.map(({ panel }) => NOT_GRAFANAS[panel.type]).filter(Boolean))];
  return [
    "Drawn with Grafana's components (@grafana/ui 11.6) from the dashboard's JSON and the answers of a real Prometheus that scraped a",
    ' simulated subnet.',
    ...drawn.map((name) => ` ${name} are drawn by this project, because Grafana does not publish that component.`),
  ].join('');
}

function Dashboard({ request, placed, height, shared, onError }) {
  return (
    <grafana.ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div id="dashboard" style={{ width: request.width, background: theme.colors.background.canvas }}>
        <Toolbar dashboard={request.dashboard} variables={request.variables} />
        <main style={{ position: 'relative', height, margin: `0 ${PADDING}px` }}>
          {placed.map((one) => (
            <div key={one.panel.id} style={{ position: 'absolute', left: one.left, top: one.top, width: one.width, height: one.height }}>
              <Panel one={one} width={one.width} height={one.height} shared={shared} onError={(error) => onError(one.panel, error)} />
            </div>
          ))}
        </main>
        <footer style={{ padding: `0 ${PADDING}px 10px`, color: theme.colors.text.secondary, fontSize: 11 }}>{note(placed)}</footer>
      </div>
    </grafana.ThemeContext.Provider>
  );
}

const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));

// What is not seen whole: titles of panels, and headings of columns.
const cut = () =>
  [...document.querySelectorAll('main h2, [role=columnheader] button')]
    .filter((one) => one.scrollWidth > one.clientWidth + 1)
    .map((one) => one.textContent);

window.draw = async (request) => {
  const errors = [];
  const failed = (panel, error) => errors.push(`${request.dashboard.uid}, "${panel.title}": ${error.message}`);
  const replaceVariables = replacer(request.variables);
  const range = grafana.makeTimeRange(grafana.dateTimeForTimeZone(timeZone, request.range.from), grafana.dateTimeForTimeZone(timeZone, request.range.to));
  const { placed, height } = layOut(request.dashboard.panels, request.width - 2 * PADDING, request.open);
  const ready = [];
  for (const one of placed) {
    try {
      check(one.panel);
      const answers = request.answers[one.panel.id];
      const asks = answers !== undefined;
      const made = asks
        ? await prepare({ panel: one.panel, answers, step: request.step }, { theme, timeZone, replaceVariables })
        : { data: [], fieldConfig: one.panel.fieldConfig };
      ready.push({ ...one, ...made });
    } catch (error) {
      failed(one.panel, error);
    }
  }
  document.body.replaceChildren(document.createElement('div'));
  const root = createRoot(document.body.firstChild);
  // Text is measured before it is drawn: its font must be there.
  root.render(
    <grafana.ThemeContext.Provider value={theme}>
      <GlobalStyles />
    </grafana.ThemeContext.Provider>
  );
  for (const weight of ['400', '500']) {
    while ((await document.fonts.load(`${weight} 14px Inter`)).length === 0) {
      await frame();
    }
  }
  const shared = { theme, timeZone, range, replaceVariables };
  root.render(<Dashboard request={request} placed={ready} height={height} shared={shared} onError={failed} />);
  await frame();
  await document.fonts.ready;
  await frame();
  return { errors, cut: cut() };
};
