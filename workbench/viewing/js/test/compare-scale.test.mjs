import assert from "node:assert/strict";
import { test } from "node:test";
import { axisEnd, percent, span } from "../src/compare-scale.js";

test("an axis ends where all shares fit, whatever is not known", () => {
  assert.equal(axisEnd([0.004, null, 0.011]), 0.02);
  assert.equal(axisEnd([]), 0.01);
  assert.equal(axisEnd([0.2, Number.NaN]), 0.2);
  assert.equal(axisEnd([1]), 1);
  assert.equal(axisEnd([1.5]), 1);
});

test("a range lies where its ends are, and never outside", () => {
  assert.deepEqual(span(0.05, 0.1, 0.2), { left: 25, width: 25 });
  assert.deepEqual(span(0.1, 0.1, 0.2), { left: 50, width: 0 });
  assert.deepEqual(span(-1, 2, 1), { left: 0, width: 100 });
  assert.equal(span(null, 0.1, 1), null);
  assert.equal(span(0, null, 1), null);
});

test("the end of an axis is written without noise", () => {
  assert.equal(percent(0.07), "7 %");
  assert.equal(percent(0.02), "2 %");
  assert.equal(percent(1), "100 %");
});
