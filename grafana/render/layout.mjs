// Places panels as Grafana's grid does.

const COLUMNS = 24;
const CELL = 30;
const GAP = 8;
// Where the grid is narrower, Grafana shows panels one below the other.
const ONE_COLUMN_BELOW = 768;

const byPlace = (a, b) => a.gridPos.y - b.gridPos.y || a.gridPos.x - b.gridPos.x;

// The panels that are seen. An opened row moves what is below it down.
function visible(panels, open) {
  let moved = 0;
  return [...panels].sort(byPlace).flatMap((panel) => {
    const place = (one, y) => ({ ...one, gridPos: { ...one.gridPos, y } });
    const here = place(panel, panel.gridPos.y + moved);
    if (panel.type !== 'row' || !panel.collapsed || !open) {
      return [here];
    }
    const inside = [...panel.panels].sort(byPlace);
    const top = inside.length > 0 ? inside[0].gridPos.y : 0;
    const shift = here.gridPos.y + 1 - top;
    const bottom = Math.max(0, ...inside.map((one) => one.gridPos.y + one.gridPos.h - top));
    moved += bottom;
    return [{ ...here, collapsed: false }, ...inside.map((one) => place(one, one.gridPos.y + shift))];
  });
}

/**
 * Return the panels with their `left`, `top`, `width` and `height` in pixels, and the height of all.
 * @param open Whether collapsed rows are opened.
 */
export function layOut(panels, width, open) {
  const seen = visible(panels, open);
  const height = (rows) => rows * CELL + (rows - 1) * GAP;
  if (width < ONE_COLUMN_BELOW) {
    let top = 0;
    const placed = seen.map((panel) => {
      const box = { left: 0, top, width, height: height(panel.gridPos.h) };
      top += box.height + GAP;
      return { panel, ...box };
    });
    return { placed, height: top };
  }
  const column = (width - GAP * (COLUMNS - 1)) / COLUMNS;
  const placed = seen.map((panel) => {
    const { x, y, w, h } = panel.gridPos;
    return {
      panel,
      left: Math.round((column + GAP) * x),
      top: y * (CELL + GAP),
      width: Math.round(column * w + GAP * (w - 1)),
      height: height(h),
    };
  });
  return { placed, height: Math.max(0, ...placed.map((one) => one.top + one.height + GAP)) };
}
