// The tuner: policies on the left, what they cost on the right. Everything shown is written by Python.
import { Controls, controlsStyle } from "./tune-controls.js";
import { flips, numbersStyle, tiles, verdicts } from "./tune-numbers.js";
import { Picture, pictureStyle } from "./tune-picture.js";
import { Texts, textsStyle } from "./tune-texts.js";
import { ownKeys } from "./keys.js";
import { follow, injectStyle, make, problemLine } from "./theme.js";

const style = `
.rd-view.rd-tune{padding:12px 14px 10px;background:none;max-width:1500px}
.rd-tune .rd-texts,.rd-tune .rd-controls,.rd-tune .rd-verdicts,.rd-tune .rd-flips,.rd-tune .rd-picture{background:var(--rd-page)}
.rd-tune .rd-top{display:flex;gap:14px;align-items:baseline;height:30px;overflow:hidden;white-space:nowrap}
.rd-tune .rd-top h3{margin:0;font-size:17px;font-weight:600;overflow:hidden;text-overflow:ellipsis;color:inherit}
.rd-tune .rd-top button{flex:none}.rd-tune .rd-top button[hidden]{display:none}
.rd-tune .rd-top span{margin-left:auto;color:var(--rd-soft);overflow:hidden;text-overflow:ellipsis}
.rd-tune .rd-top[data-phase="error"] span,.rd-tune .rd-top[data-phase="failed"] span{color:var(--rd-bad)}
.rd-tune .rd-wait{height:3px;margin:0 0 7px;border-radius:2px;overflow:hidden;background:transparent}
.rd-tune .rd-wait i{display:block;height:100%;width:30%;border-radius:2px;background:var(--rd-tight);visibility:hidden}
.rd-tune .rd-wait.rd-on{background:var(--rd-rule)}
.rd-tune .rd-wait.rd-on i{visibility:visible;animation:rd-wait 1.1s ease-in-out infinite alternate}
@keyframes rd-wait{to{margin-left:70%}}
@media (prefers-reduced-motion:reduce){.rd-tune .rd-wait.rd-on i{animation:none;width:100%}}
.rd-tune .rd-two{display:grid;grid-template-columns:minmax(0,1.45fr) minmax(330px,1fr);gap:12px;margin-bottom:12px}
.rd-tune .rd-side{display:grid;gap:12px;align-content:start;min-width:0}
.rd-tune .rd-below{display:grid;grid-template-columns:minmax(0,1fr) minmax(330px,1fr);gap:12px}
.rd-tune .rd-stale>*{opacity:.5}
.rd-tune .rd-save{display:flex;gap:8px;align-items:center;margin-top:12px;flex-wrap:wrap}
.rd-tune .rd-save input{width:200px}
.rd-tune .rd-save label{color:var(--rd-soft)}
.rd-tune .rd-save .rd-space{flex:1}
.rd-tune .rd-said{height:20px;margin:4px 0 0;color:var(--rd-soft);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-tune .rd-said[data-tone="bad"]{color:var(--rd-bad)}.rd-tune .rd-said[data-tone="good"]{color:var(--rd-good)}
.rd-tune .rd-problem,.rd-tune .rd-problem:empty{display:block;height:20px;overflow:auto}
@media (max-width:820px){.rd-tune .rd-two,.rd-tune .rd-below{grid-template-columns:minmax(0,1fr)}}
`;
const PALE_AFTER = 150; // milliseconds: a quick answer does not flicker
const MARK_AFTER = 400;

function status(model, shown) {
  const title = make("h3");
  const text = make("span", { role: "status" });
  const top = make("header", { class: "rd-top" }, title, text);
  const more = button("Ask Cedar", "decide what columns left; may take a while", () => model.send({ type: "complete" }));
  top.append(more);
  const wait = make("div", { class: "rd-wait", "aria-hidden": "true" }, make("i"));
  const timers = [];
  const still = () => timers.splice(0).forEach(clearTimeout);
  let wasDeciding = false;
  const draw = () => {
    const { phase, text: said, is_stale: isStale, left } = model.get("_status");
    more.hidden = !left;
    top.dataset.phase = phase;
    title.textContent = model.get("label");
    title.title = model.get("label");
    text.title = said;
    const isDeciding = phase === "deciding";
    for (const part of shown) part.setAttribute("aria-busy", String(isDeciding));
    if (!isDeciding) {
      still();
      text.textContent = said;
      for (const part of shown) part.classList.toggle("rd-stale", isStale);
      wait.classList.remove("rd-on");
    } else if (!wasDeciding) {
      timers.push(setTimeout(() => shown.forEach((part) => part.classList.add("rd-stale")), PALE_AFTER));
      timers.push(setTimeout(() => { wait.classList.add("rd-on"); text.textContent = said; }, MARK_AFTER));
    }
    wasDeciding = isDeciding;
  };
  const end = follow(model, ["_status", "label"], draw);
  return { top, wait, destroy: () => { still(); end(); } };
}

function button(text, title, onClick) {
  const node = make("button", { type: "button", title }, text);
  node.addEventListener("click", onClick);
  return node;
}

function saving(model, me) {
  const id = `${me}-name`;
  const name = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false" });
  const where = make("label", { for: id });
  const save = () => model.send({ type: "save", name: name.value });
  const keep = button("Save as new version", "write the texts into a new folder", save);
  const compare = button("Compare", "replay the history as recorded and with these texts, and show both", () => model.send({ type: "compare" }));
  const again = button("Back to start", "take the texts the session began with", () => model.send({ type: "back", number: 0 }));
  const row = make("div", { class: "rd-save" }, where, name, keep, make("span", { class: "rd-space" }), again, compare);
  const said = make("p", { class: "rd-said", role: "status" });
  name.addEventListener("keydown", (event) => event.key === "Enter" && save());
  let suggested = "";
  const draw = () => {
    const { folder, name: free, text, tone, is_comparing: isComparing } = model.get("_saving");
    where.textContent = `Save in ${folder} as`;
    if (name.value === suggested) name.value = free;
    suggested = free;
    said.textContent = said.title = text;
    said.dataset.tone = tone;
    compare.disabled = isComparing;
    keep.disabled = model.get("_status").phase === "error";
  };
  return { el: make("section", { "aria-label": "save and compare" }, row, said), destroy: follow(model, ["_saving", "_status"], draw) };
}

function render({ model, el }) {
  injectStyle(el, "tune", style + textsStyle + controlsStyle + numbersStyle + pictureStyle);
  const me = Math.random().toString(36).slice(2, 10);
  const [texts, controls, cost, counts, changes, picture] = [
    new Texts(model, me), new Controls(model, me), tiles(model), verdicts(model), flips(model), new Picture(model)];
  const state = status(model, [cost.el, counts.el, changes.el]);
  const keep = saving(model, me);
  const [line, end] = problemLine(model);
  const root = make("div", { class: "rd-view rd-tune", role: "region", "aria-label": "tuner" },
    state.top, state.wait, make("div", { class: "rd-two" }, texts.el, make("div", { class: "rd-side" }, controls.el, cost.el, counts.el)),
    make("div", { class: "rd-below" }, changes.el, picture.el), keep.el, line);
  el.append(root);
  const keys = ownKeys(root);
  return () => {
    keys();
    for (const part of [texts, controls, cost, counts, changes, picture, state, keep]) part.destroy();
    end();
    root.remove();
  };
}

export default { render };
