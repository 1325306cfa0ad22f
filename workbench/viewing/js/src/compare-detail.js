// One decision of a comparison under every version: HTML made by Python, and whose side is told in full.
import { ownKeys } from "./keys.js";
import { setHtml } from "./safe.js";
import { follow, injectStyle, make, problemLine } from "./theme.js";

const style = `
.rd-compare-detail{box-sizing:border-box;border:1px solid var(--rd-rule);border-radius:7px;width:100%;margin-top:6px;height:460px;display:flex;flex-direction:column}
.rd-compare-detail .rd-line{display:flex;gap:8px;align-items:center;flex:none;height:34px;padding:0 10px;border-bottom:1px solid var(--rd-rule);white-space:nowrap;overflow-x:auto}
.rd-compare-detail .rd-line b{font-weight:600}
.rd-compare-detail .rd-line span{color:var(--rd-soft)}
.rd-compare-detail button[aria-pressed="true"]{border-color:var(--rd-tight);box-shadow:inset 0 0 0 1px var(--rd-tight);font-weight:600}
.rd-compare-detail .rd-body{overflow:auto;flex:1;padding:4px 10px;overscroll-behavior:contain}
.rd-compare-detail .rd-body.rd-busy{opacity:.5}
.rd-compare-detail .rd-problem{padding:3px 10px}
.rd-compare-detail .rd-hint{color:var(--rd-soft);text-align:center;margin:170px 0 0}
`;

export default {
  render({ model, el }) {
    injectStyle(el, "compare-detail", style);
    const line = make("div", { class: "rd-line" });
    const body = make("div", { class: "rd-body", tabindex: "0", role: "region", "aria-label": "the chosen decision under every version" });
    const [problem, end] = problemLine(model);
    const root = make("section", { class: "rd-view rd-compare-detail", "aria-label": "decision" }, line, problem, body);
    el.append(root);
    line.addEventListener("click", (event) => {
      const place = event.target.closest("[data-about]")?.dataset.about;
      if (place !== undefined) model.send({ type: "about", candidate: Number(place) });
    });
    const ends = [end, ownKeys(root),
      follow(model, ["_decision", "_about", "_is_busy"], () => {
        const names = model.get("_names");
        const held = line.contains(document.activeElement) ? document.activeElement.dataset.about : undefined;
        const buttons = names.length < 2 ? [] : names.map((name, place) => {
          const node = make("button", { type: "button", "aria-pressed": String(place === model.get("_about")) }, name);
          node.dataset.about = String(place);
          return node;
        });
        const decision = model.get("_decision");
        const says = model.get("_is_busy") ? "working it out…" : "";
        line.replaceChildren(make("b", {}, decision ? `Decision ${decision}` : "Decision"), ...buttons, make("span", { role: "status" }, says));
        buttons[Number(held)]?.focus({ preventScroll: true });
        body.classList.toggle("rd-busy", model.get("_is_busy"));
      }),
      follow(model, ["_html"], () => {
        if (model.get("_html")) setHtml(body, model.get("_html"));
        else body.replaceChildren(make("p", { class: "rd-hint" }, "Choose a decision in the list: what each version says of it, with clauses and contexts, appears here."));
        body.scrollTop = 0;
      })];
    return () => ends.forEach((each) => each());
  },
};
