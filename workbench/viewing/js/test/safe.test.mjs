import assert from "node:assert/strict";
import { test } from "node:test";
import { isLocal, isPlainStyle } from "../src/safe.js";

test("only a fragment and a picture given whole stay in the page", () => {
  for (const good of ["#part", " #part", "data:image/png;base64,AA", "data:image/svg+xml;utf8,<svg/>"]) assert.ok(isLocal(good), good);
  const bad = ["javascript:alert(1)", "java\nscript:alert(1)", "\u0001javascript:1", "JAVASCRIPT:1", "vbscript:1", "data:text/html,x",
    "data:image/svgx", "http://example.com/x.png", "//example.com/x", "x.png", "file:///etc", "blob:x", "", "data:application/xhtml+xml,x"];
  for (const each of bad) assert.ok(!isLocal(each), each);
});

test("a style that loads is none", () => {
  for (const good of ["color:red", "--a:1;width:50%", "a::after{content:\"\\2014\"}", "a{color:var(--x)} @media (prefers-color-scheme:dark){b{c:d}}"]) assert.ok(isPlainStyle(good));
  for (const bad of ["background:url(//x)", "background:URL (x)", "@import 'x'", "u/**/rl(x)", "background:u\\72l(x)", "background:u\\72 l(x)", "@\\69mport 'x'", "background:\\url(x)", "background:image-set('x' 1x)"]) {
    assert.ok(!isPlainStyle(bad), bad);
  }
});
