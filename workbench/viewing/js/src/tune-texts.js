// The tuner's texts: a tab a file, the editor, and what is wrong with them, each problem a way to its line.
import { Editor } from "./editor.js";
import { Newest } from "./texts.js";
import { follow, make } from "./theme.js";

export const textsStyle = `
.rd-tune .rd-texts{display:flex;flex-direction:column;border:1px solid var(--rd-rule);border-radius:7px;overflow:hidden;height:566px;min-width:0}
.rd-tune .rd-tabs{display:flex;gap:2px;padding:4px 6px 0;background:var(--rd-wash);border-bottom:1px solid var(--rd-rule);overflow-x:auto;flex:none;height:33px}
.rd-tune .rd-tabs button{border:1px solid transparent;border-bottom:0;border-radius:6px 6px 0 0;white-space:nowrap;color:var(--rd-soft)}
.rd-tune .rd-tabs button[aria-selected="true"]{background:var(--rd-page);color:var(--rd-ink);border-color:var(--rd-rule)}
.rd-tune .rd-tabs .rd-wrong{color:var(--rd-bad)}
.rd-tune .rd-tabs .rd-other{font-style:italic}
.rd-tune .rd-code:focus-within{outline:2px solid var(--rd-tight);outline-offset:-2px}
.rd-tune .rd-code{flex:1;min-height:0;overflow:hidden}
.rd-tune .rd-code .cm-editor{height:100%}
.rd-tune .rd-problems{flex:none;height:66px;overflow:auto;border-top:1px solid var(--rd-rule);padding:4px 8px;margin:0;list-style:none}
.rd-tune .rd-problems li{margin:0}
.rd-tune .rd-problems button{border:0;padding:1px 4px;text-align:left;width:100%;min-height:0;overflow-wrap:anywhere}
.rd-tune .rd-problems b{color:var(--rd-bad);font-weight:600;margin-right:6px}
.rd-tune .rd-problems .rd-fine{color:var(--rd-soft);padding:2px 4px}
`;

export class Texts {
  constructor(model, me) {
    this.model = model;
    this.me = me;
    this.tabs = make("div", { class: "rd-tabs", role: "tablist", "aria-label": "files of the bundle" });
    this.code = make("div", { class: "rd-code", role: "tabpanel" });
    this.problems = make("ul", { class: "rd-problems", "aria-label": "problems", "aria-live": "polite" });
    this.el = make("section", { class: "rd-texts", "aria-label": "policies" }, this.tabs, this.code, this.problems);
    this.senders = new Map();
    this.editor = new Editor(this.code, (file, text) => this.sender(file).give({ type: "edit", file, text, client: me }));
    this.tabs.addEventListener("keydown", (event) => this.walk(event));
    this.ends = [
      follow(model, ["_files"], () => this.take()),
      follow(model, ["_seen"], () => this.hear()),
      follow(model, ["_problems"], () => this.say()),
    ];
  }

  // Texts are sent file by file: an edit of one does not wait for that of another.
  sender(file) {
    if (!this.senders.has(file)) this.senders.set(file, new Newest((message) => this.model.send(message)));
    return this.senders.get(file);
  }

  take() {
    const { policies = {}, others = {} } = this.model.get("_files");
    // What a person has typed and Python has not seen is newer than what Python says.
    const older = Object.fromEntries(Object.entries(policies).filter(([file]) => !this.isAhead(file)));
    this.editor.setFiles(older, others);
    const names = [...Object.keys(policies), ...Object.keys(others)];
    if (names.join("\n") !== this.names?.join("\n")) this.drawTabs(names, policies);
    if (this.editor.file === null && names.length) this.show(names[0]);
  }

  isAhead(file) {
    return this.senders.get(file)?.isAhead ?? false;
  }

  hear() {
    const seen = this.model.get("_seen")[this.me] ?? {};
    const waited = [...this.senders].filter(([, sender]) => sender.isAhead).map(([file]) => file);
    for (const [file, seq] of Object.entries(seen)) this.senders.get(file)?.answer(seq);
    if (waited.some((file) => !this.isAhead(file))) this.take();
  }

  drawTabs(names, policies) {
    this.names = names;
    this.buttons = new Map(names.map((file) => {
      const isEditable = Object.hasOwn(policies, file);
      const tab = make("button", { type: "button", role: "tab", "aria-selected": "false", tabindex: "-1" }, file);
      if (!isEditable) tab.classList.add("rd-other");
      tab.title = isEditable ? "policies" : "read-only";
      tab.addEventListener("click", () => this.show(file));
      return [file, tab];
    }));
    this.tabs.replaceChildren(...this.buttons.values());
    if (this.editor.file !== null) this.show(this.editor.file);
  }

  show(file) {
    this.editor.show(file);
    for (const [name, tab] of this.buttons) {
      tab.setAttribute("aria-selected", String(name === file));
      tab.tabIndex = name === file ? 0 : -1;
    }
    this.code.setAttribute("aria-label", file);
  }

  walk(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = this.names[(this.names.indexOf(this.editor.file) + step + this.names.length) % this.names.length];
    this.show(next);
    this.buttons.get(next).focus();
    event.preventDefault();
  }

  say() {
    const problems = this.model.get("_problems");
    this.editor.setProblems(problems);
    const wrong = new Set(problems.map(({ file }) => file));
    for (const [name, tab] of this.buttons ?? []) tab.classList.toggle("rd-wrong", wrong.has(name));
    const lines = problems.map((problem) => this.line(problem));
    this.problems.replaceChildren(...(lines.length ? lines : [make("li", { class: "rd-fine" }, "No problems: the policies load.")]));
  }

  line({ file, line, place, policy, message }) {
    const go = make("button", { type: "button" }, make("b", {}, place || "bundle"), policy ? `policy ${policy}: ${message}` : message);
    go.addEventListener("click", () => {
      if (!this.buttons.has(file)) return;
      this.show(file);
      this.editor.goTo(file, line);
    });
    return make("li", {}, go);
  }

  destroy() {
    for (const sender of this.senders.values()) sender.stop();
    this.ends.forEach((end) => end());
    this.editor.destroy();
  }
}
