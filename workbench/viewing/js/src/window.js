// Which rows of a long table are to be drawn, and how they lie under a scroll bar. Pure: no document in here.
export const ROW = 27;
// Browsers end an element at some 33 million pixels; a longer table scrolls in proportion.
export const MAX_HEIGHT = 12_000_000;
export const MARGIN = 40;

/** How a table of `total` rows lies under a scroll bar, of which `view` pixels are seen. */
export function measure(total, view) {
  const whole = total * ROW;
  const height = Math.min(whole, MAX_HEIGHT);
  const seen = Math.max(1, Math.floor(view / ROW));
  const rows = Math.max(0, total - view / ROW);
  return { height, seen, rows, ratio: height > view ? rows / (height - view) : 0, isScaled: whole > height };
}

/** The first row that is seen (a fraction: partly) when the bar is at `top`. */
export function rowAt(top, lie) {
  return Math.min(lie.rows, Math.max(0, top * lie.ratio));
}

/** Where the bar is when `row` is the first that is seen. */
export function topOf(row, lie) {
  return lie.ratio ? Math.min(lie.rows, Math.max(0, row)) / lie.ratio : 0;
}

/** The first row to show so that `row` is seen, when `first` is shown now. */
export function reveal(row, first, lie) {
  if (row < first) return row;
  return row > first + lie.seen - 1 ? Math.min(lie.rows, row - lie.seen + 1) : first;
}

/** Rows to draw: from, to (exclusive). */
export function drawn(first, lie, total) {
  const from = Math.floor(first);
  return [from, Math.min(total, from + lie.seen + 2)];
}

/** Rows to ask for, if those drawn are not all there; `have` is {start, n} or null. */
export function missing(from, to, have, total) {
  if (from >= to || (have && have.start <= from && to <= have.start + have.n)) return null;
  const start = Math.max(0, from - MARGIN);
  return { start, n: Math.min(total, to + MARGIN) - start };
}

/** Where a key takes the active row; null: the key is not for us. */
export function moved(key, row, lie, total) {
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: lie.seen - 1, PageUp: 1 - lie.seen };
  if (!total) return null;
  if (key === "Home") return 0;
  if (key === "End") return total - 1;
  if (!Object.hasOwn(steps, key)) return null;
  return Math.min(total - 1, Math.max(0, row < 0 ? 0 : row + steps[key]));
}
