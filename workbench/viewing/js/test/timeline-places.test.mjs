import assert from "node:assert/strict";
import { test } from "node:test";
import { lanes, places } from "../src/timeline-places.js";

test("moments lie in order within the width, the first and the last at its ends", () => {
  const xs = places([0, 1, 5, 10], 124, false);
  assert.deepEqual(xs, [12, 22, 62, 112]);
  assert.deepEqual(places([0, 1, 5, 9], 124, true).map(Math.round), [12, 45, 79, 112]);
});

test("one moment, or the same for all, is spread evenly", () => {
  assert.deepEqual(places([7], 124, false), [12]);
  assert.deepEqual(places([7, 7, 7], 124, false), [12, 62, 112]);
});

test("marks of a lane do not touch while there are lanes", () => {
  const xs = [0, 1, 2, 20, 21, 40];
  const found = lanes(xs, 13, 4);
  assert.deepEqual(found, [0, 1, 2, 0, 1, 0]);
  assert.ok(lanes(Array(50).fill(5), 13, 4).every((lane) => lane >= 0 && lane < 4));
});
