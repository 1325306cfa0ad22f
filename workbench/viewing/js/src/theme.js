// Colours by theme: what the notebook says comes first, then what the system says. The same as templates/_style.html.j2,
// under a class of their own, so that a report in the same notebook does not restyle a view.
const light = `--rd-ink:#1b1f24;--rd-soft:#5b6470;--rd-faint:#6f7781;--rd-rule:#e4e7eb;--rd-wash:#f5f6f8;--rd-page:#fff;
--rd-good:#19694f;--rd-bad:#984308;--rd-note:#6d4f94;--rd-tight:#2b5c9e;--rd-wait:#735400;--rd-code:#eef0f3;--rd-pick:#e6effb;color-scheme:light;`;
const dark = `--rd-ink:#e6e9ee;--rd-soft:#a5adb8;--rd-faint:#8d96a1;--rd-rule:#2c323a;--rd-wash:#1b2027;--rd-page:#13171c;
--rd-good:#4fbf97;--rd-bad:#e8935a;--rd-note:#b79ad6;--rd-tight:#82b0ee;--rd-wait:#dcb45c;--rd-code:#222831;--rd-pick:#18273d;color-scheme:dark;`;

const base = `
.rd-view{${light}}
@media (prefers-color-scheme:dark){.rd-view{${dark}}}
body[data-jp-theme-light="true"] .rd-view,body.vscode-light .rd-view{${light}}
body[data-jp-theme-light="false"] .rd-view,body.vscode-dark .rd-view{${dark}}
.rd-view{font:13px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--rd-ink);
  font-variant-numeric:tabular-nums;text-align:left;background:var(--rd-page);min-width:0}
.rd-view,.rd-view *{box-sizing:border-box}
.rd-view button,.rd-view input,.rd-view select{font:inherit;color:inherit;background:none;border:1px solid var(--rd-rule);
  border-radius:5px;padding:2px 8px;margin:0;min-height:26px}
.rd-view button{cursor:pointer}
.rd-view button:hover{background:var(--rd-wash)}
.rd-view button:disabled{cursor:default;color:var(--rd-faint);background:none}
.rd-view input::placeholder{color:var(--rd-faint);opacity:1}
.rd-view :focus-visible{outline:2px solid var(--rd-tight);outline-offset:-1px}
.rd-view .rd-mono{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.rd-view .rd-hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.rd-view .rd-problem{color:var(--rd-bad);margin:0;min-height:0;overflow-wrap:anywhere}
.rd-view .rd-problem:empty{display:none}
.rd-view .rd-s-good{--rd-hue:var(--rd-good)}.rd-view .rd-s-bad{--rd-hue:var(--rd-bad)}
.rd-view .rd-s-note{--rd-hue:var(--rd-note)}.rd-view .rd-s-tight{--rd-hue:var(--rd-tight)}
.rd-view .rd-s-wait{--rd-hue:var(--rd-wait)}
.rd-view .rd-s-none{--rd-hue:var(--rd-soft)}
.rd-view .rd-state{color:var(--rd-hue);background:color-mix(in srgb,var(--rd-hue) 11%,transparent);border-radius:9px;
  padding:0 7px;font-size:12px;white-space:nowrap}
`;

/** Put the views' style into the document of `root`, once; `extra` is a view's own, put there once under its `name`. */
export function injectStyle(root, name = "", extra = "") {
  const place = root.getRootNode() instanceof ShadowRoot ? root.getRootNode() : document.head;
  for (const [id, text] of [["rd-view", base], [`rd-view-${name}`, extra]]) {
    if (!text || place.querySelector(`style[data-rd="${id}"]`)) continue;
    const style = document.createElement("style");
    style.dataset.rd = id;
    style.textContent = text;
    place.append(style);
  }
}

const hues = {
  allow: "good", permitted: "good", succeeded: "good", modify: "tight", approve: "wait", block: "bad",
  undecided: "note", quarantined: "note", failed: "bad", denied: "bad", in_doubt: "note",
};

/** The class that colours a verdict, a status or an effect; words that are not known stay grey. */
export function stateClass(word) {
  return `rd-s-${Object.hasOwn(hues, word) ? hues[word] : "none"}`;
}

const marks = { allow: "circle", modify: "diamond", approve: "triangle", block: "square" };

/** The shape that stands for a verdict beside its colour. */
export function stateMark(word) {
  return Object.hasOwn(marks, word) ? marks[word] : "ring";
}

/** Make an element: attributes as given (`class`, `role`, `aria-…`), children as nodes or text. */
export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on") || typeof value === "function") throw new TypeError(`no handlers by attribute: ${name}`);
    if (value === false || value === null || value === undefined) continue;
    node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

/** Make an SVG element, as `make` does. */
export function draw(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== false && value !== null) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Run `redraw` now and whenever one of the model's traits changes; returns what ends it. */
export function follow(model, names, redraw) {
  for (const name of names) model.on(`change:${name}`, redraw);
  redraw();
  return () => names.forEach((name) => model.off(`change:${name}`, redraw));
}

/** A line for what is wrong, read out when it changes. */
export function problemLine(model) {
  const line = make("p", { class: "rd-problem", role: "alert" });
  const end = follow(model, ["problem"], () => { line.textContent = line.title = model.get("problem"); });
  return [line, end];
}
