import assert from "node:assert/strict";
import { test } from "node:test";
import { drawn, MARGIN, MAX_HEIGHT, measure, missing, moved, reveal, ROW, rowAt, topOf } from "../src/window.js";

const totals = [0, 1, 5, 11, 12, 1_000, 444_444, 444_445, 1_000_000, 50_000_000];
const views = [ROW, 5.5 * ROW, 300, 2_000];

test("the bar's ends are the first and the last row, whatever the length", () => {
  for (const total of totals) for (const view of views) {
    const lie = measure(total, view);
    assert.ok(lie.height <= MAX_HEIGHT);
    assert.equal(rowAt(0, lie), 0);
    const [from, to] = drawn(rowAt(Math.max(0, lie.height - view), lie), lie, total);
    assert.equal(to, total, `${total} in ${view}`);
    assert.ok(to - from <= lie.seen + 2);
    assert.equal(rowAt(1e12, lie), lie.rows);
  }
});

test("a row and the bar's place for it are inverse", () => {
  for (const total of totals) for (const view of views) {
    const lie = measure(total, view);
    for (const part of [0, 0.1, 0.5, 0.999, 1]) {
      const row = part * lie.rows;
      assert.ok(Math.abs(rowAt(topOf(row, lie), lie) - row) < 1e-6 * Math.max(1, row));
    }
  }
});

test("a short table does not scroll, and a long one goes by whole pixels until it is scaled", () => {
  assert.equal(measure(5, 300).ratio, 0);
  assert.equal(measure(1_000, 300).isScaled, false);
  assert.ok(Math.abs(measure(1_000, 300).ratio - 1 / ROW) < 1e-12);
  assert.equal(measure(1_000_000, 300).isScaled, true);
});

test("revealing moves as little as it must", () => {
  const lie = measure(1_000, 10 * ROW);
  assert.equal(reveal(5, 0, lie), 0);
  assert.equal(reveal(9, 0, lie), 0);
  assert.equal(reveal(10, 0, lie), 1);
  assert.equal(reveal(3, 7, lie), 3);
  assert.equal(reveal(999, 0, lie), 990);
  for (const row of [0, 17, 500, 998, 999]) {
    const [from, to] = drawn(reveal(row, 400, lie), lie, 1_000);
    assert.ok(from <= row && row < to);
  }
});

test("only what is not there is asked for, with a margin", () => {
  assert.equal(missing(0, 0, null, 0), null);
  assert.deepEqual(missing(0, 10, null, 1_000), { start: 0, n: 10 + MARGIN });
  assert.deepEqual(missing(500, 510, null, 1_000), { start: 500 - MARGIN, n: 10 + 2 * MARGIN });
  assert.deepEqual(missing(995, 1_000, null, 1_000), { start: 995 - MARGIN, n: 5 + MARGIN });
  const have = { start: 460, n: 90 };
  assert.equal(missing(460, 470, have, 1_000), null);
  assert.equal(missing(540, 550, have, 1_000), null);
  assert.notEqual(missing(541, 551, have, 1_000), null);
});

test("keys go where they say and stay within", () => {
  const lie = measure(100, 10 * ROW);
  assert.equal(moved("ArrowDown", -1, lie, 100), 0);
  assert.equal(moved("ArrowDown", 99, lie, 100), 99);
  assert.equal(moved("ArrowUp", 0, lie, 100), 0);
  assert.equal(moved("PageDown", 0, lie, 100), 9);
  assert.equal(moved("PageUp", 5, lie, 100), 0);
  assert.equal(moved("End", 3, lie, 100), 99);
  assert.equal(moved("Home", 3, lie, 100), 0);
  assert.equal(moved("a", 3, lie, 100), null);
  assert.equal(moved("constructor", 3, lie, 100), null);
  assert.equal(moved("End", 0, measure(0, 100), 0), null);
});
