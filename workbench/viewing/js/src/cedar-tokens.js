// Tokens of Cedar policies and schemas, for CodeMirror's stream parser: what each piece of a line is, for its colour.
//
// Only colours depend on it. What is wrong in a text is said by the bundle loader in Python, never by this.
// Words are those of Cedar 4; a name that is none of them stays a plain name, so new words lose their colour only.

const POLICY_WORDS = new Set(["permit", "forbid", "when", "unless"]);
const SCHEMA_WORDS = new Set(["entity", "action", "type", "namespace", "appliesTo", "enum", "tags", "attributes"]);
const OPERATOR_WORDS = new Set(["if", "then", "else", "in", "is", "has", "like"]);
const VARIABLES = new Set(["principal", "action", "resource", "context"]);
const CALLS = new Set(["decimal", "ip", "datetime", "duration"]);
const TYPES = new Set(["Long", "String", "Bool", "Boolean", "Set", "Record", "ipaddr", "decimal", "datetime", "duration"]);

const NAME = /^[A-Za-z_][A-Za-z0-9_]*/;
const PATH = /^(?:[A-Za-z_][A-Za-z0-9_]*::)+(?=["A-Za-z_])/;
const STRING = /^"(?:[^"\\]|\\.)*"?/;
const OPERATOR = /^(?:==|!=|<=|>=|&&|\|\||[<>!+\-*=])/;

function string(stream, state) {
  stream.match(STRING);
  const after = state.after;
  state.after = null;
  if (after === "path") return "entityId";
  return state.annotation ? "annotationText" : "string";
}

function word(stream, state, schema) {
  const member = state.after === "dot";
  if (stream.match(PATH)) {
    state.after = "path";
    return "entityType";
  }
  const name = stream.match(NAME)[0];
  const path = state.after === "path";
  state.after = null;
  if (path) return "entityType";
  if (member) return stream.match(/^\s*\(/, false) ? "method" : "property";
  if (name === "true" || name === "false") return "bool";
  if (schema) return schemaWord(name, stream);
  if (POLICY_WORDS.has(name)) return "keyword";
  if (stream.match(/^\s*:(?!:)/, false)) return "property";
  if (OPERATOR_WORDS.has(name)) {
    if (name === "is") state.after = "path";
    if (name === "has") state.after = "dot";
    return "operatorWord";
  }
  if (VARIABLES.has(name)) return "variable";
  return CALLS.has(name) && stream.match(/^\s*\(/, false) ? "call" : "name";
}

function schemaWord(name, stream) {
  if (stream.match(/^\??\s*:(?!:)/, false)) return "property";
  if (SCHEMA_WORDS.has(name)) return "keyword";
  if (name === "in") return "operatorWord";
  return TYPES.has(name) ? "typeName" : "name";
}

function token(stream, state, schema) {
  if (stream.eatSpace()) return null;
  if (stream.match("//")) {
    stream.skipToEnd();
    return "comment";
  }
  if (stream.match(/^@[A-Za-z_][A-Za-z0-9_]*/)) {
    state.annotation = true;
    return "annotation";
  }
  const next = stream.peek();
  if (next === '"') return string(stream, state);
  if (/[A-Za-z_]/.test(next)) {
    state.annotation = false;
    return word(stream, state, schema);
  }
  state.after = null;
  if (stream.match(/^[0-9]+/)) return "number";
  if (stream.match(/^\?(?:principal|resource)\b/)) return "slot";
  if (stream.match(OPERATOR)) return "operator";
  stream.next();
  if (next === ".") state.after = "dot";
  if (next === ")") state.annotation = false;
  return /[()[\]{}]/.test(next) ? "bracket" : "punctuation";
}

function indent(state, textAfter, context) {
  const line = context.lineAt(context.pos, -1);
  const before = line.text;
  const base = /^\s*/.exec(before)[0].length;
  const opens = /[([{]\s*(?:\/\/.*)?$/.test(before) ? context.unit : 0;
  const closes = /^\s*[)\]}]/.test(textAfter) ? context.unit : 0;
  return Math.max(0, base + opens - closes);
}

const copyState = (state) => ({ ...state });
const languageData = { commentTokens: { line: "//" }, closeBrackets: { brackets: ["(", "[", "{", '"'] } };

const parser = (name, schema) => ({
  name,
  startState: () => ({ after: null, annotation: false }),
  copyState,
  token: (stream, state) => token(stream, state, schema),
  indent,
  languageData,
});

export const cedarTokens = parser("cedar", false);
export const schemaTokens = parser("cedarschema", true);

// TOML and JSON are shown, not edited: comments, keys, strings and numbers are enough.
export const dataTokens = {
  name: "data",
  startState: () => ({}),
  copyState,
  token(stream) {
    if (stream.eatSpace()) return null;
    if (stream.match(/^#.*/)) return "comment";
    if (stream.sol() && stream.match(/^\[\[?[^\]]*\]\]?/)) return "keyword";
    if (stream.match(/^(?:"(?:[^"\\]|\\.)*"|[A-Za-z_][\w.-]*)(?=\s*[:=])/)) return "property";
    if (stream.match(STRING) || stream.match(/^'[^']*'/)) return "string";
    if (stream.match(/^(?:true|false|null)\b/)) return "bool";
    if (stream.match(/^-?[0-9][0-9_.]*/)) return "number";
    stream.next();
    return null;
  },
};

export function tokensOf(file) {
  if (file.endsWith(".cedar")) return cedarTokens;
  return file.endsWith(".cedarschema") ? schemaTokens : dataTokens;
}
