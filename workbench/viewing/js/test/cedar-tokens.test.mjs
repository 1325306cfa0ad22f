import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { StringStream } from "@codemirror/language";
import { cedarTokens, dataTokens, schemaTokens, tokensOf } from "../src/cedar-tokens.js";

function cut(parser, text) {
  const found = [];
  const state = parser.startState();
  for (const line of text.split("\n")) {
    const stream = new StringStream(line, 2, 2);
    while (!stream.eol()) {
      const start = stream.pos;
      const style = parser.token(stream, state);
      assert.ok(stream.pos > start, `no progress at ${line.slice(start)}`);
      if (style) found.push([line.slice(start, stream.pos), style]);
    }
  }
  return found;
}

const of = (found, text) => found.filter(([each]) => each === text).map(([, style]) => style);

test("a policy's parts have their styles", () => {
  const found = cut(cedarTokens, [
    '// who pays "back"',
    '@id("refund-large") @tune("{\\"limit\\": {\\"value\\": 5}}")',
    'forbid (principal is Shop::Agent in Team::"leads", action == Action::"issue_refund", resource)',
    'when { context.args.amount >= 5000 && context.now.durationSince(resource.placed) > duration("540d") }',
    'unless { principal has level && resource.text like "*x*" || true };',
  ].join("\n"));
  assert.deepEqual(of(found, '// who pays "back"'), ["comment"]);
  assert.deepEqual(of(found, "@id"), ["annotation"]);
  assert.deepEqual(of(found, '"refund-large"'), ["annotationText"]);
  assert.deepEqual(of(found, "forbid"), ["keyword"]);
  assert.deepEqual(of(found, "Team::"), ["entityType"]);
  assert.deepEqual(of(found, '"leads"'), ["entityId"]);
  assert.deepEqual(of(found, "Shop::"), ["entityType"]);
  assert.deepEqual(of(found, "Agent"), ["entityType"]);
  assert.deepEqual(of(found, "context"), ["variable", "variable"]);
  assert.deepEqual(of(found, "amount"), ["property"]);
  assert.deepEqual(of(found, "durationSince"), ["method"]);
  assert.deepEqual(of(found, "duration"), ["call"]);
  assert.deepEqual(of(found, '"540d"'), ["string"]);
  assert.deepEqual(of(found, "5000"), ["number"]);
  assert.deepEqual(of(found, "has"), ["operatorWord"]);
  assert.deepEqual(of(found, "true"), ["bool"]);
  assert.deepEqual(of(found, ">="), ["operator"]);
});

test("a string that never ends stops at its line", () => {
  const found = cut(cedarTokens, 'when { "open\npermit');
  assert.deepEqual(found.at(-1), ["permit", "keyword"]);
});

test("escaped quotes end no string", () => {
  assert.deepEqual(cut(cedarTokens, 'Role::"a\\"b"'), [["Role::", "entityType"], ['"a\\"b"', "entityId"]]);
});

test("template slots are told from variables", () => {
  assert.deepEqual(of(cut(cedarTokens, "permit (principal == ?principal, action, resource);"), "?principal"), ["slot"]);
});

test("a schema has words of its own", () => {
  const found = cut(schemaTokens, 'entity Agent in [Team] { level?: Long, action: Bool };\naction pay appliesTo {};');
  assert.deepEqual(of(found, "entity"), ["keyword"]);
  assert.deepEqual(of(found, "level"), ["property"]);
  assert.deepEqual(of(found, "Long"), ["typeName"]);
  assert.deepEqual(of(found, "action"), ["property", "keyword"]);
});

test("files are told by their names", () => {
  assert.equal(tokensOf("a/b.cedar"), cedarTokens);
  assert.equal(tokensOf("schema.cedarschema"), schemaTokens);
  assert.equal(tokensOf("limits.toml"), dataTokens);
});

test("every byte of the shipped bundles is passed, and no name hides in them", () => {
  const root = new URL("../../../../datasets/", import.meta.url);
  for (const file of ["support-desk/candidate/orders.cedar", "agentdojo/candidate/slack.cedar"]) {
    const found = cut(cedarTokens, readFileSync(new URL(file, root), "utf8"));
    assert.ok(found.length > 200, file);
    for (const [text, style] of found) assert.notEqual(style, "name", `${file}: ${text}`);
  }
  for (const file of ["support-desk/candidate/schema.cedarschema", "support-desk/candidate/context.toml"]) {
    cut(tokensOf(file), readFileSync(new URL(file, root), "utf8"));
  }
});
