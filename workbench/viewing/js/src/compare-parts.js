// The parts of a comparison: lists, matrices, what tools and policies it comes from, effects. Each is made anew of its
// state; whoever had the focus gets it back by its `data-key`.
import { axisEnd, percent, span } from "./compare-scale.js";
import { make } from "./theme.js";

/** A number keeps its sign for per cent on its line. */
export const kept = (text) => text.replaceAll(" %", "\u00a0%");
export const count = (number) => number.toLocaleString("en-GB");
const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;

/** A button that says what it filters; `key` names it over redrawings. */
function choice(key, text, chosen, label, more = "") {
  const node = make("button", { type: "button", class: `rd-choice ${more}`, "aria-pressed": String(chosen), "aria-label": label }, text);
  node.dataset.key = key;
  return node;
}

/** Put new content into `el`, keeping focus and scrolling where they were. */
export function refill(el, ...children) {
  const key = el.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  const { scrollTop, scrollLeft } = el;
  el.replaceChildren(...children);
  el.scrollTop = scrollTop;
  el.scrollLeft = scrollLeft;
  if (key !== undefined) [...el.querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus({ preventScroll: true });
}

const nameHeads = (names) => (names.length > 1 ? names.map((name) => make("th", { scope: "col", class: "rd-name", title: name }, name)) : [make("th", { scope: "col" }, "decisions")]);

/** One line a list, one column a candidate. */
export function listTable(lists, names, focus) {
  const rows = lists.map(({ name, title, help, hue, counts, chosen }) => make("tr", {},
    make("th", { scope: "row", title: help }, make("i", { class: `rd-dot rd-h-${hue}`, "aria-hidden": "true" }), title),
    ...counts.map((n, place) => make("td", {},
      choice(`list:${place}:${name}`, count(n), chosen && place === focus, `${title}${names.length > 1 ? `, ${names[place]}` : ""}: ${many(n, "decision")}`, n ? "" : "rd-zero")))));
  return make("table", { class: "rd-lists" },
    make("caption", { class: "rd-hidden" }, "Lists of decisions; a number shows its list"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "which decisions"), ...nameHeads(names))), make("tbody", {}, ...rows));
}

/** A candidate's transition matrix. */
export function matrixTable(matrix, states, place, name) {
  const isChosen = (before, after) => matrix.chosen?.[0] === before && matrix.chosen?.[1] === after;
  const cell = (before, { after, n, hue, strength }) => {
    const chosen = isChosen(before, after);
    if (!n && !chosen) return make("td", { class: "rd-zero", "aria-label": "0" }, "·");
    const node = choice(`cell:${place}:${before}:${after}`, count(n), chosen, `${before} to ${after}${name ? `, ${name}` : ""}: ${many(n, "decision")}`, `rd-c rd-h-${hue}`);
    node.style.setProperty("--rd-p", `${strength}%`);
    return make("td", {}, node);
  };
  const sums = states.map((_, column) => matrix.rows.reduce((sum, row) => sum + row.cells[column].n, 0));
  return make("table", { class: "rd-heat" },
    make("caption", { class: name ? "" : "rd-hidden" }, name || "Transitions: from what the base says, in rows, to what the candidate says"),
    make("thead", {}, make("tr", {}, make("th", {}, make("span", { class: "rd-corner" }, "from ↓ to →")), ...states.map((state) => make("th", { scope: "col" }, state)), make("th", { scope: "col" }, "all"))),
    make("tbody", {}, ...matrix.rows.map(({ state, cells, total }) => make("tr", {}, make("th", { scope: "row" }, state), ...cells.map((each) => cell(state, each)), make("td", { class: "rd-sum" }, count(total)))),
      make("tr", {}, make("th", { scope: "row" }, "all"), ...sums.map((sum) => make("td", { class: sum ? "rd-sum" : "rd-sum rd-zero" }, count(sum))), make("td", { class: "rd-sum" }, count(matrix.total)))));
}

/** What the colours of a matrix mean. */
export function matrixKey() {
  const keys = [["same", "as before"], ["tight", "stricter"], ["loose", "looser"], ["doubt", "not decided"]];
  return make("p", { class: "rd-soft rd-keys" }, ...keys.map(([hue, text]) => make("span", {}, make("i", { class: `rd-dot rd-h-${hue}`, "aria-hidden": "true" }), text)));
}

/** One line a tool, policy or tenant, one column a candidate. */
export function facetTable(facet, names, focus) {
  const most = Math.max(1, ...facet.rows.map(({ counts }) => counts[focus]));
  const rows = facet.rows.map(({ place, title, counts, chosen }) => {
    const bar = make("i", { class: "rd-bar", "aria-hidden": "true" });
    bar.style.width = `${(100 * counts[focus]) / most}%`;
    return make("tr", {}, make("th", { scope: "row", class: "rd-mono", title }, make("span", {}, title), bar),
      ...counts.map((n, candidate) => make("td", {},
        choice(`key:${candidate}:${facet.side}:${place}`, count(n), chosen && candidate === focus, `${facet.side} ${title}${names.length > 1 ? `, ${names[candidate]}` : ""}: ${many(n, "decision")}`, n ? "" : "rd-zero"))));
  });
  const left = facet.left ? `${many(facet.left, "more", "more")}: search` : rows.length ? "" : facet.search ? "no name has that" : "none";
  return [
    make("table", { class: "rd-facet" }, make("caption", { class: "rd-hidden" }, `By ${facet.side}; a number narrows to it`),
      names.length > 1 ? make("thead", {}, make("tr", {}, make("th", { scope: "col" }, facet.side), ...nameHeads(names))) : "", make("tbody", {}, ...rows)),
    make("p", { class: "rd-soft" }, left),
  ];
}

const hues = { more: "good", less: "bad" };

function bar(measure, end, hue) {
  const seen = span(measure.low, measure.high, end);
  const future = span(measure.lower, measure.upper, end);
  const node = make("span", { class: `rd-range rd-h-${hue}`, role: "img",
    "aria-label": `on this log ${measure.seen}${measure.future ? `; in future traffic ${measure.future}` : ""}; the axis ends at ${percent(end)}` });
  for (const [at, name] of [[future, "rd-future"], [seen, "rd-seen"]]) {
    if (!at) continue;
    const part = make("i", { class: name });
    part.style.left = `${at.left}%`;
    part.style.width = `${at.width}%`;
    node.append(part);
  }
  return node;
}

function measureCell(measure, end, isEstimated) {
  const known = { exact: "exact", bounds: "between bounds" }[measure.basis] ?? measure.known;
  const future = isEstimated ? measure.future || "–" : "working it out…";
  const how = [measure.known, measure.of === null ? "" : `of ${count(measure.of)}`, measure.method, measure.clusters === null ? "" : many(measure.clusters, "cluster")];
  const node = make("div", { class: "rd-measure", title: how.filter(Boolean).join("; ") },
    make("span", { class: "rd-now" }, make("b", {}, kept(measure.seen)), make("small", { class: `rd-tag rd-h-${measure.basis === "exact" ? "same" : "doubt"}` }, known)));
  node.append(measure.share ? bar(measure, end, hues[measure.better] ?? "tight") : make("span", { class: "rd-range rd-none", "aria-hidden": "true" }),
    make("span", { class: "rd-soft rd-then" }, kept(future)));
  return make("td", {}, node);
}

/** One line a quantity, one column a candidate: on this log, and in future traffic. */
export function effectsTable(candidates, names) {
  const rows = candidates[0].measures.map(({ name, text, share, better }, place) => {
    const found = candidates.map((each) => each.measures.find((other) => other.name === name) ?? null);
    const end = axisEnd(found.flatMap((each) => (each ? [each.low, each.high, each.lower, each.upper] : [])));
    const way = { more: "more is better", less: "less is better" }[better] ?? "";
    const first = place > 0 && !share && candidates[0].measures[place - 1].share;
    return make("tr", { class: first ? "rd-first" : false },
      make("th", { scope: "row", title: `${name}${way ? `; ${way}` : ""}` }, text, way ? make("small", { class: "rd-soft" }, way) : ""),
      ...found.map((each, at) => (each ? measureCell(each, end, candidates[at].estimated) : make("td", {}, "–"))),
      make("td", { class: "rd-soft rd-axis" }, share ? percent(end) : ""));
  });
  const heads = names.length > 1 ? names.map((name) => make("th", { scope: "col", class: "rd-name", title: name }, name)) : [make("th", { scope: "col" }, "on this log, and in future traffic")];
  return make("table", { class: `rd-effects${names.length > 1 ? " rd-several" : ""}` }, make("caption", { class: "rd-hidden" }, "Effects of the candidates"),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "quantity"), ...heads, make("th", { scope: "col", class: "rd-axis" }, "axis to"))), make("tbody", {}, ...rows));
}
