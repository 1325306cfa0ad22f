// What the history answers: verdicts with their difference to the baseline, and what it costs, in tiles.
import { follow, make, stateClass } from "./theme.js";

export const numbersStyle = `
.rd-tune .rd-tiles{display:grid;grid-template-columns:1fr 1fr;gap:1px;background:var(--rd-rule);border:1px solid var(--rd-rule);border-radius:7px;overflow:hidden;height:204px}
.rd-tune .rd-tile{background:var(--rd-page);padding:7px 12px 9px;display:flex;flex-direction:column;min-width:0}
.rd-tune .rd-tile h4{margin:0;font-weight:400;font-size:13px;color:var(--rd-soft)}
.rd-tune .rd-tile b{font-size:22px;line-height:1.3;font-weight:600;letter-spacing:-.01em}
.rd-tune .rd-tile p{margin:0;color:var(--rd-soft);font-size:12px}
.rd-tune .rd-delta{font-size:13px;font-weight:600;color:var(--rd-hue);margin-left:7px;letter-spacing:0}
.rd-tune .rd-part{height:4px;border-radius:2px;background:var(--rd-rule);margin-top:auto;overflow:hidden}
.rd-tune .rd-part i{display:block;height:100%;background:var(--rd-soft);transition:width .12s}
.rd-tune table{border-collapse:collapse;width:100%;font-size:13px;margin:0}
.rd-tune th,.rd-tune td{padding:2px 8px;text-align:right;border:0;border-bottom:1px solid var(--rd-rule);font-weight:400;background:none;white-space:nowrap}
.rd-tune thead th{color:var(--rd-soft)}
.rd-tune th:first-child,.rd-tune td:first-child{text-align:left;padding-left:0}
.rd-tune .rd-verdicts,.rd-tune .rd-flips{border:1px solid var(--rd-rule);border-radius:7px;padding:6px 14px;height:188px;overflow:auto}
.rd-tune .rd-flips{height:290px}
.rd-tune .rd-flips h4{margin:2px 0 4px;font-weight:600;font-size:13px;color:inherit}
.rd-tune .rd-flips p{margin:4px 0;color:var(--rd-soft)}
.rd-tune .rd-flips .rd-left{text-align:left}
.rd-tune .rd-flips td:first-child{overflow-wrap:anywhere;white-space:normal}
.rd-tune .rd-verdicts td .rd-part{width:76px;margin:0 0 0 auto}
`;

function bar(part, hue = "") {
  const fill = make("i");
  fill.style.width = `${Math.min(100, 100 * part)}%`;
  if (hue) fill.style.background = "var(--rd-hue)";
  return make("div", { class: `rd-part ${hue}`, "aria-hidden": "true" }, fill);
}

function tile({ name, title, n, share, part, delta, tone, help }) {
  const number = make("b", {}, n, make("span", { class: `rd-delta rd-s-${tone}`, title: "against the baseline" }, delta));
  const said = make("p", {}, share);
  return make("section", { class: "rd-tile", "data-tile": name, "aria-label": title, title: help }, make("h4", {}, title), number, said, bar(part));
}

export function tiles(model) {
  const el = make("div", { class: "rd-tiles", role: "group", "aria-label": "what it costs" });
  const end = follow(model, ["_answer"], () => el.replaceChildren(...(model.get("_answer").tiles ?? []).map(tile)));
  return { el, destroy: end };
}

function verdict({ name, n, share, part, delta }) {
  const hue = stateClass(name);
  return make("tr", { "data-verdict": name },
    make("td", {}, make("span", { class: `rd-state ${hue}` }, name)), make("td", {}, n), make("td", {}, share),
    make("td", {}, delta), make("td", {}, bar(part, hue)));
}

export function verdicts(model) {
  const body = make("tbody");
  const head = make("tr", {}, ...["verdict", "decisions", "share", "to baseline", ""].map((text) => make("th", { scope: "col" }, text)));
  const el = make("section", { class: "rd-verdicts", "aria-label": "verdicts" }, make("table", {}, make("thead", {}, head), body));
  const end = follow(model, ["_answer"], () => body.replaceChildren(...(model.get("_answer").verdicts ?? []).map(verdict)));
  return { el, destroy: end };
}

function flip({ tool, from, to, n }) {
  const state = (name) => make("td", { class: "rd-left" }, make("span", { class: `rd-state ${stateClass(name)}` }, name));
  return make("tr", {}, make("td", { class: "rd-mono" }, tool), state(from), state(to), make("td", {}, n));
}

export function flips(model) {
  const body = make("tbody");
  const head = make("tr", {}, ...["tool", "baseline", "now", "decisions"].map((text) => make("th", { scope: "col", class: text === "decisions" ? null : "rd-left" }, text)));
  const table = make("table", {}, make("thead", {}, head), body);
  const said = make("p");
  const el = make("section", { class: "rd-flips", "aria-label": "changed verdicts", tabindex: "0" },
    make("h4", {}, "Verdicts that change against the baseline"), said, table);
  const end = follow(model, ["_answer"], () => {
    const { flips: rows = [], flipped = "" } = model.get("_answer");
    body.replaceChildren(...rows.map(flip));
    said.textContent = flipped;
    table.hidden = !rows.length;
  });
  return { el, destroy: end };
}
