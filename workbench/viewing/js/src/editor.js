// An editor for the files of a bundle: one document a file, Cedar in colours, problems at their lines.
//
// One rule: what a text is comes from Python (`setText`), what a person types goes there (`onEdit`); a text that comes
// replaces only what differs, so cursor, selection and undo survive a slider that moves a literal.
// Tab is not bound: it leaves the editor, as in any form. Mod-[ and Mod-] indent.
import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap } from "@codemirror/commands";
import { bracketMatching, HighlightStyle, indentOnInput, indentUnit, StreamLanguage, syntaxHighlighting } from "@codemirror/language";
import { lintGutter, lintKeymap, setDiagnostics } from "@codemirror/lint";
import { highlightSelectionMatches, search, searchKeymap } from "@codemirror/search";
import { EditorState } from "@codemirror/state";
import { drawSelection, EditorView, highlightActiveLine, highlightActiveLineGutter, keymap, lineNumbers } from "@codemirror/view";
import { tags } from "@lezer/highlight";
import { tokensOf } from "./cedar-tokens.js";
import { difference } from "./texts.js";

const tokenTable = {
  annotation: tags.annotation, annotationText: tags.attributeValue, keyword: tags.keyword, operatorWord: tags.operatorKeyword,
  variable: tags.special(tags.variableName), slot: tags.special(tags.variableName), property: tags.propertyName,
  method: tags.function(tags.propertyName), call: tags.function(tags.variableName), entityType: tags.typeName,
  entityId: tags.special(tags.string), typeName: tags.standard(tags.typeName), string: tags.string, number: tags.number,
  bool: tags.bool, comment: tags.lineComment, operator: tags.operator, bracket: tags.bracket,
  punctuation: tags.punctuation, name: tags.name,
};

const colours = HighlightStyle.define([
  { tag: [tags.keyword, tags.operatorKeyword], color: "var(--rd-tight)", fontWeight: "600" },
  { tag: tags.annotation, color: "var(--rd-note)" },
  { tag: tags.attributeValue, color: "var(--rd-soft)" },
  { tag: [tags.typeName, tags.standard(tags.typeName)], color: "var(--rd-note)" },
  { tag: [tags.string, tags.special(tags.string)], color: "var(--rd-good)" },
  { tag: [tags.number, tags.bool], color: "var(--rd-bad)" },
  { tag: tags.special(tags.variableName), fontWeight: "600" },
  { tag: [tags.function(tags.propertyName), tags.function(tags.variableName)], fontStyle: "italic" },
  { tag: tags.comment, color: "var(--rd-soft)", fontStyle: "italic" },
  { tag: [tags.operator, tags.punctuation, tags.bracket], color: "var(--rd-soft)" },
]);

const look = EditorView.theme({
  "&": { height: "100%", fontSize: "12.5px", backgroundColor: "var(--rd-page)", color: "var(--rd-ink)" },
  ".cm-scroller": { fontFamily: 'ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace', lineHeight: "1.5" },
  ".cm-content": { caretColor: "var(--rd-ink)" },
  "&.cm-focused": { outline: "none" },
  "&.cm-focused .cm-cursor": { borderLeftColor: "var(--rd-ink)" },
  ".cm-gutters": { backgroundColor: "var(--rd-wash)", color: "var(--rd-soft)", border: "none", borderRight: "1px solid var(--rd-rule)" },
  ".cm-activeLine": { backgroundColor: "color-mix(in srgb, var(--rd-tight) 7%, transparent)" },
  ".cm-activeLineGutter": { backgroundColor: "color-mix(in srgb, var(--rd-tight) 14%, transparent)", color: "var(--rd-ink)" },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground, .cm-selectionBackground": {
    backgroundColor: "color-mix(in srgb, var(--rd-tight) 28%, transparent)",
  },
  ".cm-selectionMatch, .cm-searchMatch": { backgroundColor: "color-mix(in srgb, var(--rd-note) 26%, transparent)" },
  ".cm-matchingBracket": { backgroundColor: "color-mix(in srgb, var(--rd-good) 26%, transparent)" },
  ".cm-panels, .cm-tooltip": { backgroundColor: "var(--rd-wash)", color: "var(--rd-ink)", border: "1px solid var(--rd-rule)" },
  ".cm-panels input, .cm-panels button": {
    backgroundColor: "var(--rd-page)", backgroundImage: "none", color: "var(--rd-ink)", border: "1px solid var(--rd-rule)", borderRadius: "4px",
  },
  ".cm-panels label": { color: "var(--rd-soft)", fontSize: "12px" },
  ".cm-diagnostic": { whiteSpace: "pre-wrap", maxWidth: "60ch", overflowWrap: "anywhere" },
  ".cm-diagnostic-error": { borderLeftColor: "var(--rd-bad)" },
  ".cm-lintRange-error": {
    backgroundImage: "none", textDecoration: "underline wavy var(--rd-bad)", textDecorationSkipInk: "none", textUnderlineOffset: "3px",
  },
});

function extensions(file, isEditable, onEdit) {
  return [
    lineNumbers(), lintGutter(), history(), drawSelection(), bracketMatching(), highlightActiveLine(), highlightActiveLineGutter(),
    highlightSelectionMatches(), search({ top: true }), indentUnit.of("  "), EditorState.tabSize.of(2),
    StreamLanguage.define({ ...tokensOf(file), tokenTable }), syntaxHighlighting(colours), look, EditorView.lineWrapping,
    keymap.of([...closeBracketsKeymap, ...defaultKeymap, ...searchKeymap, ...historyKeymap, ...lintKeymap]),
    EditorView.contentAttributes.of({ "aria-label": isEditable ? `policies in ${file}` : `${file}, read-only` }),
    ...(isEditable ? [closeBrackets(), indentOnInput(), EditorView.updateListener.of(onEdit)] : [EditorState.readOnly.of(true)]),
  ];
}

function marks(doc, problems) {
  return problems.map(({ line, policy, message }) => {
    const at = doc.line(Math.min(Math.max(line, 1), doc.lines));
    const indent = /^\s*/.exec(at.text)[0].length;
    return { from: at.from + (indent < at.length ? indent : 0), to: at.to, severity: "error", source: policy || undefined, message };
  });
}

export class Editor {
  // parent: where it is drawn. onEdit(file, text): a person changed a file. root: of shadow or document.
  constructor(parent, onEdit) {
    this.onEdit = onEdit;
    this.states = new Map();
    this.editable = new Set();
    this.problems = [];
    this.file = null;
    this.fromPython = false;
    this.view = new EditorView({ parent });
  }

  update(update) {
    if (update.docChanged && !this.fromPython) this.onEdit(this.file, update.state.doc.toString());
  }

  // The files there are, by name; texts of files that are there already are changed where they differ.
  setFiles(policies, others) {
    for (const [file, text] of Object.entries(policies)) this.setText(file, text, true);
    for (const [file, text] of Object.entries(others)) this.setText(file, text, false);
  }

  setText(file, text, isEditable) {
    const known = this.stateOf(file);
    if (!known) {
      this.states.set(file, EditorState.create({ doc: text, extensions: extensions(file, isEditable, (update) => this.update(update)) }));
      if (isEditable) this.editable.add(file);
      return;
    }
    const changes = difference(known.doc.toString(), text);
    if (!changes) return;
    if (file === this.file) {
      this.fromPython = true;
      try {
        this.view.dispatch({ changes });
      } finally {
        this.fromPython = false;
      }
    } else {
      this.states.set(file, known.update({ changes }).state);
    }
  }

  stateOf(file) {
    return file === this.file ? this.view.state : this.states.get(file);
  }

  textOf(file) {
    return this.stateOf(file)?.doc.toString();
  }

  show(file) {
    if (!this.states.has(file) || file === this.file) return;
    if (this.file !== null) this.states.set(this.file, this.view.state);
    this.file = file;
    this.view.setState(this.states.get(file));
    this.mark();
  }

  setProblems(problems) {
    this.problems = problems;
    this.mark();
  }

  mark() {
    const here = this.problems.filter((each) => each.file === this.file);
    this.view.dispatch(setDiagnostics(this.view.state, marks(this.view.state.doc, here)));
  }

  goTo(file, line) {
    this.show(file);
    const { doc } = this.view.state;
    const { from } = doc.line(Math.min(Math.max(line, 1), doc.lines));
    this.view.dispatch({ selection: { anchor: from }, effects: EditorView.scrollIntoView(from, { y: "center" }) });
    this.view.focus();
  }

  destroy() {
    this.view.destroy();
  }
}
