import assert from "node:assert/strict";
import { test } from "node:test";
import { difference, Newest } from "../src/texts.js";

const apply = (text, { from, to, insert }) => text.slice(0, from) + insert + text.slice(to);

test("only the piece that differs is replaced", () => {
  assert.deepEqual(difference("limit 5000 x", "limit 7000 x"), { from: 6, to: 7, insert: "7" });
  assert.equal(difference("same", "same"), null);
  for (const [a, b] of [["", "a"], ["a", ""], ["aa", "aaa"], ["abab", "ab"], ["xay", "xaay"], ["abc", "xyz"]]) {
    assert.equal(apply(a, difference(a, b)), b);
  }
});

function clock() {
  const timers = new Map();
  let at = 0;
  let next = 0;
  return {
    options: {
      now: () => at,
      later: (f, ms) => (timers.set(++next, { at: at + ms, f }), next),
      never: (id) => timers.delete(id),
    },
    pass(ms) {
      const end = at + ms;
      for (;;) {
        const due = [...timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at)[0];
        if (!due) break;
        timers.delete(due[0]);
        at = due[1].at;
        due[1].f();
      }
      at = end;
    },
  };
}

test("a burst is one message, the newest", () => {
  const sent = [];
  const time = clock();
  const newest = new Newest((message) => sent.push(message), time.options);
  for (const text of ["a", "b", "c"]) {
    newest.give({ text });
    time.pass(10);
  }
  time.pass(100);
  assert.deepEqual(sent, [{ text: "c", seq: 3 }]);
  assert.ok(newest.isAhead);
  newest.answer(3);
  assert.ok(!newest.isAhead);
});

test("the next waits for the answer, and only the newest goes", () => {
  const sent = [];
  const time = clock();
  const newest = new Newest((message) => sent.push(message.text), time.options);
  newest.give({ text: "a" });
  time.pass(60);
  newest.give({ text: "b" });
  time.pass(500);
  newest.give({ text: "c" });
  time.pass(500);
  assert.deepEqual(sent, ["a"]);
  newest.answer(1);
  time.pass(1);
  assert.deepEqual(sent, ["a", "c"]);
  newest.answer(3);
  time.pass(10_000);
  assert.deepEqual(sent, ["a", "c"]);
});

test("a drag keeps sending while it is answered", () => {
  const sent = [];
  const time = clock();
  const newest = new Newest((message) => sent.push(message.seq), time.options);
  for (let step = 1; step <= 50; step++) {
    newest.give({ text: `${step}` });
    time.pass(20);
    if (newest.sent > newest.answered) newest.answer(newest.sent);
  }
  assert.ok(sent.length >= 10, `${sent.length} sent in a drag of a second`);
});

test("without an answer it tries again", () => {
  const sent = [];
  const time = clock();
  const newest = new Newest((message) => sent.push(message.text), time.options);
  newest.give({ text: "a" });
  time.pass(100);
  newest.give({ text: "b" });
  time.pass(20_000);
  assert.deepEqual(sent, ["a", "b"]);
});

test("what is stopped sends nothing more", () => {
  const sent = [];
  const time = clock();
  const newest = new Newest((message) => sent.push(message), time.options);
  newest.give({ text: "a" });
  newest.stop();
  time.pass(20_000);
  assert.deepEqual(sent, []);
});
