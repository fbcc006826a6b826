// A dashboard as a page: `window.draw(request)` shows it, and returns what is wrong with it.
//
// A request is {dashboard, answers, step, variables, range, width, open}: the dashboard as it is committed; by panel and
// query, the answers of Prometheus; their step in seconds; the texts of the variables; `from` and `to` in milliseconds; the
// width in pixels; whether closed rows are opened.
import * as grafana from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';

import { setUp } from '../display/frames.mjs';
import { dependencies } from '../package.json';
import { Content } from './panels.jsx';

const PADDING = 16;
const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
const NOTE =
  `Drawn with Grafana's components (@grafana/ui ${dependencies['@grafana/ui']}) from the dashboard's JSON and Prometheus' answers about a day` +
  ' that the public code of the service lived. State timelines are drawn by this project, because Grafana does not publish that component.';
const timeZone = 'utc';
const theme = grafana.createTheme({ colors: { mode: 'dark' } });
const prepare = setUp(grafana);
grafana.locationUtil.initialize({
  config: { appSubUrl: '' },
  getVariablesUrlParams: () => ({}),
  getTimeRangeForUrl: () => ({ from: 'now-24h', to: 'now' }),
});

// The panels of Grafana's grid with their places in pixels. An opened row moves what is below it down.
function layOut(panels, width, open) {
  const column = (width - GAP * (COLUMNS - 1)) / COLUMNS;
  let moved = 0;
  return panels.flatMap((panel) => {
    const inside = open && panel.type === 'row' ? panel.panels : [];
    const found = [panel, ...inside].map((one) => {
      const { x, y, w, h } = one.gridPos;
      const top = (y + moved) * (CELL + GAP);
      return { panel: one, top, left: (column + GAP) * x, width: column * w + GAP * (w - 1), height: CELL * h + GAP * (h - 1) };
    });
    moved += Math.max(0, ...inside.map(({ gridPos }) => gridPos.y + gridPos.h - panel.gridPos.y - 1));
    return found;
  });
}

function Panel({ panel, width, height, shared, ...made }) {
  if (panel.type === 'row') {
    return <h2 style={{ fontSize: 16, lineHeight: '30px' }}>{`› ${panel.title}`}</h2>;
  }
  const title = shared.replaceVariables(panel.title);
  return (
    <PanelChrome title={title} width={width} height={height} padding={panel.type === 'table' ? 'none' : 'md'}>
      {(innerWidth, innerHeight) => <Content {...shared} {...made} panel={panel} options={panel.options} width={innerWidth} height={innerHeight} />}
    </PanelChrome>
  );
}

function Dashboard({ request, placed, shared }) {
  const height = Math.max(...placed.map((one) => one.top + one.height + GAP));
  return (
    <grafana.ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div id="dashboard" style={{ width: request.width, padding: `12px ${PADDING}px`, background: theme.colors.background.canvas }}>
        <h1 style={{ fontSize: 18 }}>{request.dashboard.title}</h1>
        <main style={{ position: 'relative', height }}>
          {placed.map(({ top, left, ...one }) => (
            <div key={one.panel.id} style={{ position: 'absolute', left, top, width: one.width, height: one.height }}>
              <Panel {...one} shared={shared} />
            </div>
          ))}
        </main>
        <footer style={{ color: theme.colors.text.secondary, fontSize: 11 }}>{NOTE}</footer>
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
  // Links keep what they carry over.
  const replaceVariables = (text) => text.replace(/\$\{?(\w+)\}?/g, (all, name) => request.variables[name] ?? all);
  const range = grafana.makeTimeRange(...['from', 'to'].map((end) => grafana.dateTimeForTimeZone(timeZone, request.range[end])));
  const shared = { theme, timeZone, range, replaceVariables };
  const placed = layOut(request.dashboard.panels, request.width - 2 * PADDING, request.open);
  const ready = placed.map(async (one) => {
    const asked = { panel: one.panel, answers: request.answers[one.panel.id], step: request.step };
    return { ...one, ...(one.panel.type === 'row' ? {} : await prepare(asked, shared)) };
  });
  const dashboard = <Dashboard request={request} placed={await Promise.all(ready)} shared={shared} />;
  // Text is measured before it is drawn: its font must be there, which the first time asks for.
  for (const _ of ['fonts', 'picture']) {
    document.body.innerHTML = '<div></div>';
    createRoot(document.body.firstChild).render(dashboard);
    await frame();
    await frame();
    await document.fonts.ready;
  }
  await frame();
  return cut();
};
