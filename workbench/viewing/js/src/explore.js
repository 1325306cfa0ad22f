// The explorer's filter: a text, a time, facets with counts. Values are named by the codes that Python gave them.
import { ownKeys } from "./keys.js";
import { follow, injectStyle, make, problemLine } from "./theme.js";
import { Bars } from "./explore-bars.js";
import { Facet } from "./explore-facet.js";

const style = `
.rd-explore{width:calc(100% - 2px);display:flex;flex-direction:column;gap:6px}
.rd-explore .rd-line{display:flex;gap:8px;align-items:center;flex-wrap:wrap;min-height:30px}
.rd-explore .rd-line label{color:var(--rd-soft);display:flex;gap:5px;align-items:center}
.rd-explore input[type=search]{min-width:0}
.rd-explore .rd-text{flex:1;min-width:220px}.rd-explore .rd-text input{flex:1;width:100%}
.rd-explore .rd-time{width:158px;padding:1px 8px}
.rd-explore .rd-said{min-width:210px;white-space:nowrap}.rd-explore .rd-said b{font-weight:600}
.rd-explore .rd-busy{color:var(--rd-soft)}
.rd-explore .rd-facets{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(0,1fr);gap:6px}
.rd-explore .rd-facet{border:1px solid var(--rd-rule);border-radius:7px;margin:0;padding:0;min-width:0;height:190px;display:flex;flex-direction:column;overflow:hidden}
.rd-explore .rd-facet-head{display:flex;align-items:center;gap:6px;padding:3px 5px 3px 9px;border-bottom:1px solid var(--rd-rule);height:32px;flex:none}
.rd-explore .rd-facet-head b{font-weight:600;white-space:nowrap}
.rd-explore .rd-facet-head input{width:100%;min-width:30px;min-height:23px;padding:0 6px;font-size:12px}
.rd-explore .rd-facet-head button{min-height:22px;padding:0 6px;font-size:12px;flex:none}
.rd-explore .rd-space{flex:1}
.rd-explore .rd-values{overflow-y:auto;flex:1;overscroll-behavior:contain}
.rd-explore .rd-value{display:flex;gap:6px;align-items:center;padding:0 9px;height:24px;cursor:pointer}
.rd-explore .rd-value:hover{background:var(--rd-wash)}
.rd-explore .rd-value:has(input:checked){background:var(--rd-pick)}
.rd-explore .rd-value:has(:focus-visible){outline:2px solid var(--rd-tight);outline-offset:-2px}
.rd-explore .rd-value input{min-height:0;margin:0;flex:none;accent-color:var(--rd-tight);outline:none}
.rd-explore .rd-value span{overflow:hidden;text-overflow:ellipsis;white-space:pre;flex:1}
.rd-explore .rd-value small{font-size:12px;color:var(--rd-soft);flex:none}
.rd-explore .rd-zero{color:var(--rd-faint)}
.rd-explore .rd-more{color:var(--rd-soft);font-size:12px;padding:2px 9px 5px;margin:0}
.rd-explore .rd-bars{height:46px;width:100%;display:block;touch-action:none;cursor:crosshair}
.rd-explore .rd-bars rect{fill:color-mix(in srgb,var(--rd-tight) 55%,var(--rd-page))}.rd-explore .rd-bars .rd-drawn{fill:var(--rd-tight);opacity:.25}
.rd-explore .rd-bars line{stroke:var(--rd-rule)}.rd-explore .rd-bars text{fill:var(--rd-soft);font-size:11px}
.rd-explore .rd-foot{position:relative}
.rd-explore .rd-foot .rd-problem{position:absolute;top:0;right:0;max-width:calc(100% - 200px);overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-explore details{min-height:24px}.rd-explore summary{cursor:pointer;color:var(--rd-soft);width:max-content}
.rd-explore pre{margin:4px 0 0;padding:7px 10px;background:var(--rd-code);border-radius:6px;white-space:pre-wrap;overflow-wrap:anywhere;max-height:120px;overflow:auto;color:inherit}
`;
// Long enough that a word is typed, short enough that the answer seems to follow the typing.
const TYPING = 180;

/** Call `tell` once typing rests; Enter and leaving the field do not wait. */
function typed(input, tell) {
  let timer = 0;
  let told = input.value;
  const now = () => {
    clearTimeout(timer);
    if (input.value !== told) tell((told = input.value));
  };
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(now, TYPING);
  });
  input.addEventListener("change", now);
  return { end: () => clearTimeout(timer), heard: (value) => { told = value; } };
}

class Explore {
  constructor(model, el) {
    this.model = model;
    this.facets = new Map();
    const [line, end] = problemLine(model);
    this.build(el, line);
    const ends = [
      end, ownKeys(this.root), () => this.typing.end(), () => this.facets.forEach((facet) => facet.end()), () => this.bars.end(),
      follow(model, ["_said", "busy", "_is_empty"], () => this.says()),
      follow(model, ["_facets"], () => this.draw()),
      follow(model, ["_text", "_times"], () => this.asked()),
      follow(model, ["_code"], () => this.code()),
      follow(model, ["_bins"], () => this.time()),
    ];
    this.end = () => ends.forEach((each) => each());
  }

  build(el, line) {
    this.text = make("input", { type: "search", placeholder: "search arguments, resources, ids", "aria-label": "search arguments, resources and ids", maxlength: "1000", spellcheck: "false", autocomplete: "off" });
    this.since = make("input", { class: "rd-time", "aria-label": "from, UTC", maxlength: "40", spellcheck: "false", autocomplete: "off" });
    this.until = make("input", { class: "rd-time", "aria-label": "to, UTC", maxlength: "40", spellcheck: "false", autocomplete: "off" });
    this.said = make("b");
    this.busy = make("span", { class: "rd-busy" });
    this.reset = make("button", { type: "button" }, "Show all");
    this.box = make("div", { class: "rd-facets" });
    this.pre = make("pre", { class: "rd-mono", tabindex: "0", "aria-label": "filter as Python" });
    this.more = make("details", {}, make("summary", {}, "this filter as Python"), this.pre);
    this.bars = new Bars((first, last) => this.model.send({ type: "span", first, last }));
    this.root = make("div", { class: "rd-view rd-explore", role: "search", "aria-label": "filter decisions" },
      make("div", { class: "rd-line" }, make("span", { class: "rd-said", role: "status" }, this.said, " ", this.busy),
        make("label", { class: "rd-text" }, this.text), make("label", {}, "from", this.since), make("label", {}, "to", this.until, "UTC"), this.reset),
      this.box, this.bars.node, make("div", { class: "rd-foot" }, this.more, line));
    el.append(this.root);
    this.typing = typed(this.text, (text) => this.model.send({ type: "find", text }));
    this.reset.addEventListener("click", () => {
      this.typing.heard((this.text.value = ""));
      this.model.send({ type: "clear", facet: "" });
    });
    for (const input of [this.since, this.until]) {
      const tell = () => {
        const asked = [this.since.value, this.until.value];
        if (String(asked) === this.times) return;
        this.times = String(asked);
        this.model.send({ type: "between", since: asked[0], until: asked[1] });
      };
      input.addEventListener("blur", tell);
      // JupyterLab keeps Enter from becoming a change.
      input.addEventListener("keydown", (event) => { if (event.key === "Enter") tell(); });
    }
  }

  says() {
    this.said.textContent = this.model.get("_said");
    this.busy.textContent = this.model.get("busy");
    this.reset.disabled = this.model.get("_is_empty");
  }

  asked() {
    const text = this.model.get("_text");
    // What is being typed is newer than what Python shows.
    if (document.activeElement !== this.text || !text) this.text.value = text;
    this.typing.heard(text);
    [this.since, this.until].forEach((input, at) => {
      if (document.activeElement !== input) input.value = this.model.get("_times")[at] ?? "";
    });
    if (![this.since, this.until].includes(document.activeElement)) this.times = String([this.since.value, this.until.value]);
  }

  time() {
    const bins = this.model.get("_bins");
    this.bars.draw(bins);
    this.since.placeholder = bins.start ?? "";
    this.until.placeholder = bins.end ?? "";
  }

  code() {
    const code = this.model.get("_code");
    this.pre.textContent = code || "lake.decisions";
  }

  draw() {
    const facets = this.model.get("_facets");
    for (const given of facets) {
      if (!this.facets.has(given.name)) {
        const facet = new Facet(given, (message) => this.model.send({ facet: given.name, ...message }), typed);
        this.facets.set(given.name, facet);
        this.box.append(facet.node);
      }
      this.facets.get(given.name).draw(given);
    }
  }
}

export default {
  render({ model, el }) {
    injectStyle(el, "explore", style);
    const explore = new Explore(model, el);
    return () => explore.end();
  },
};
