// A comparison: ship or not, what changes, where it comes from, what it is worth. What is clicked is said to Python,
// which says back what is shown and how many decisions that is.
import { count, effectsTable, facetTable, kept, listTable, matrixKey, matrixTable, refill } from "./compare-parts.js";
import { style } from "./compare-style.js";
import { ownKeys } from "./keys.js";
import { follow, injectStyle, make, problemLine } from "./theme.js";

const TABS = [["what", "What changes"], ["where", "By tool, policy, tenant"], ["worth", "Effects and intervals"]];
const WAIT = 200;

class Board {
  constructor(model, el) {
    this.model = model;
    this.me = Math.random().toString(36).slice(2, 10);
    this.timers = {};
    this.build(el);
    const [line, end] = problemLine(model);
    this.root.append(line);
    const ends = [end, ownKeys(this.root), follow(model, ["_head"], () => this.heads()), follow(model, ["_counts"], () => this.counts()),
      follow(model, ["_progress"], () => { this.working.textContent = model.get("_progress"); })];
    this.end = () => {
      ends.forEach((each) => each());
      Object.values(this.timers).forEach(clearTimeout);
    };
  }

  get head() { return this.model.get("_head"); }
  get names() { return this.head.candidates.map(({ name }) => name); }

  build(el) {
    this.top = make("div", { class: "rd-top" });
    this.tabs = make("div", { class: "rd-tabs", role: "tablist", "aria-label": "parts of the comparison" }, ...TABS.map(([name, text], place) => this.tab(name, text, place)));
    this.working = make("span", { class: "rd-soft rd-working", role: "status" });
    this.what = make("div", { class: "rd-cols" });
    this.where = make("div", { class: "rd-cols rd-thirds" });
    this.worth = make("div", {});
    this.panels = [this.what, this.where, this.worth].map((inner, place) => this.panel(inner, TABS[place][0], place));
    this.bar = make("div", { class: "rd-shown" });
    this.code = make("code", { class: "rd-mono rd-code", tabindex: "0", "aria-label": "the filter in Python" });
    this.facets = {};
    this.root = make("section", { class: "rd-view rd-compare", "aria-label": "comparison" },
      this.top, make("div", { class: "rd-tabline" }, this.tabs, this.working), ...this.panels, this.bar, this.code);
    el.append(this.root);
    this.root.addEventListener("click", (event) => this.clicked(event.target.closest("[data-key]")?.dataset.key));
    this.tabs.addEventListener("keydown", (event) => this.pressed(event));
    this.open(0);
  }

  tab(name, text, place) {
    const node = make("button", { type: "button", role: "tab", id: `rd-${this.me}-t-${name}`, "aria-controls": `rd-${this.me}-p-${name}` }, text);
    node.addEventListener("click", () => this.open(place));
    return node;
  }

  panel(inner, name, place) {
    return make("div", { class: "rd-panel", role: "tabpanel", id: `rd-${this.me}-p-${name}`, "aria-labelledby": `rd-${this.me}-t-${name}`, tabindex: "0", hidden: place > 0 }, inner);
  }

  open(place) {
    [...this.tabs.children].forEach((tab, at) => {
      tab.setAttribute("aria-selected", String(at === place));
      tab.tabIndex = at === place ? 0 : -1;
    });
    this.panels.forEach((panel, at) => { panel.hidden = at !== place; });
  }

  pressed(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const all = [...this.tabs.children];
    const place = (all.indexOf(document.activeElement) + step + all.length) % all.length;
    this.open(place);
    all[place].focus();
    event.preventDefault();
    event.stopPropagation();
  }

  clicked(key) {
    if (!key) return;
    const [kind, ...of] = key.split(":");
    const send = {
      list: ([candidate, name]) => ({ type: "showlist", candidate: Number(candidate), name }),
      cell: ([candidate, before, after]) => ({ type: "showcell", candidate: Number(candidate), before, after }),
      key: ([candidate, side, place]) => ({ type: "narrow", candidate: Number(candidate), side, place: Number(place) }),
      about: ([candidate]) => ({ type: "about", candidate: Number(candidate) }),
      clear: () => ({ type: "clear" }),
    }[kind];
    if (send) this.model.send(send(of));
  }

  heads() {
    const { base, context, candidates, level } = this.head;
    const several = candidates.length > 1;
    refill(this.top,
      make("p", { class: "rd-kicker" }, `comparison${context ? ` · contexts ${context}` : ""}`),
      make("h3", {}, several ? `${base} → ${candidates.length} candidates` : `${base} → ${candidates[0].name}`),
      make("div", { class: several ? "rd-cards" : "" }, ...candidates.map((each) => this.card(each, several))));
    const notes = `On this log: exact, or between the bounds that the log leaves (the thick bar). From, to: an estimate for future traffic of the same mix, ${Number((100 * level).toPrecision(6))} % for each by itself (the thin one); per session, where it is no share.`;
    const rows = candidates.some(({ measures }) => measures.length) ? effectsTable(candidates, this.names) : make("p", { class: "rd-soft" }, "working it out…");
    refill(this.worth, make("p", { class: "rd-soft" }, kept(notes)), rows);
  }

  card({ name, lines, gated, outcome, exact, history, problem }, several) {
    const badge = outcome ? make("span", { class: `rd-badge rd-h-${outcome.hue}` }, outcome.verdict)
      : make("span", { class: "rd-badge rd-h-same" }, gated ? "working out the gates…" : "no gates declared");
    const told = outcome?.lines ?? [];
    const how = exact || (history ? "Working out which decisions are exact on this log…" : "");
    return make("article", { class: "rd-card", "aria-label": name },
      make("div", { class: "rd-line", role: "status" }, several ? make("b", { class: "rd-name", title: name }, name) : "", badge),
      gated ? make("div", { class: "rd-gates rd-soft" }, ...told.map((line) => make("p", {}, kept(line)))) : "",
      make("p", { class: "rd-lede" }, kept(lines[0] ?? "")),
      ...lines.slice(1).map((line) => make("p", { class: "rd-soft" }, kept(line))),
      history ? make("p", { class: "rd-soft rd-exact" }, kept(how)) : "",
      problem ? make("p", { class: "rd-problem" }, problem) : "");
  }

  counts() {
    const { lists, matrices, facets, shown, focus } = this.model.get("_counts");
    const names = this.names;
    refill(this.what, make("div", {}, listTable(lists, names, focus)),
      make("div", { class: "rd-matrices" }, ...matrices.map((each, place) => matrixTable(each, this.head.states, place, names.length > 1 ? names[place] : "")), matrixKey()));
    for (const facet of facets) refill(this.facet(facet).body, ...facetTable(facet, names, focus));
    this.says(shown, focus);
  }

  // Made once: what is typed stays while the counts below it change.
  facet({ side, known, search }) {
    if (this.facets[side]) {
      const { input } = this.facets[side];
      if (input !== document.activeElement && input.value !== search) input.value = search;
      return this.facets[side];
    }
    const input = make("input", { type: "search", placeholder: `search ${count(known)}`, "aria-label": `search ${side} names`, maxlength: "1000" });
    const body = make("div", { class: "rd-keys-of" });
    input.addEventListener("input", () => {
      clearTimeout(this.timers[side]);
      this.timers[side] = setTimeout(() => this.model.send({ type: "search", side, text: input.value }), WAIT);
    });
    this.where.append(make("div", {}, make("div", { class: "rd-line" }, make("b", {}, `By ${side}`), input), body));
    this.facets[side] = { input, body };
    return this.facets[side];
  }

  says({ n, of, title, help, keys, code }, focus) {
    const parts = keys.map(({ side, place, title: name }) => {
      const chip = make("button", { type: "button", class: "rd-chip", "aria-label": `no longer only ${side} ${name}`, title: name }, `${side} ${name} ✕`);
      chip.dataset.key = `key:${focus}:${side}:${place}`;
      return chip;
    });
    const clear = make("button", { type: "button", class: "rd-chip" }, "clear");
    clear.dataset.key = "clear:";
    const abouts = this.names.length < 2 ? [] : [make("span", { class: "rd-group", role: "group", "aria-label": "candidate that the list is about" },
      ...this.names.map((name, place) => {
        const node = make("button", { type: "button", class: "rd-choice rd-name", "aria-pressed": String(place === focus), title: name }, name);
        node.dataset.key = `about:${place}`;
        return node;
      }))];
    refill(this.bar, make("b", { title: help }, title), ...parts, ...abouts, make("span", { role: "status", class: "rd-soft" }, `${count(n)} of ${count(of)} decisions`), clear);
    this.code.textContent = `view.where  # ${code}`;
    this.code.title = code;
  }
}

export default {
  render({ model, el }) {
    injectStyle(el, "compare", style);
    const board = new Board(model, el);
    return () => board.end();
  },
};
