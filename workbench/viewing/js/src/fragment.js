// A piece of HTML made by Python, in a box of fixed height with its own scroll bar.
import { ownKeys } from "./keys.js";
import { setHtml } from "./safe.js";
import { follow, injectStyle, make, problemLine } from "./theme.js";

const style = `
.rd-fragment{border:1px solid var(--rd-rule);border-radius:7px;overflow:auto;resize:vertical;width:calc(100% - 2px);overscroll-behavior:contain}
.rd-fragment.rd-stale>.rd-inside{opacity:.5}
.rd-fragment .rd-placeholder{color:var(--rd-soft);padding:12px 14px;margin:0}
.rd-fragment .rd-problem{padding:8px 14px}
.rd-fragment .rd-inside>.redecide.rd-cell{border-radius:0}
`;

export default {
  render({ model, el }) {
    injectStyle(el, "fragment", style);
    const [line, endLine] = problemLine(model);
    const inside = make("div", { class: "rd-inside" });
    const root = make("div", { class: "rd-view rd-fragment", role: "region", tabindex: "0" }, line, inside);
    root.style.height = `${model.get("_height")}px`;
    el.append(root);
    const ends = [
      endLine, ownKeys(root),
      follow(model, ["label"], () => root.setAttribute("aria-label", model.get("label"))),
      follow(model, ["is_stale"], () => {
        root.classList.toggle("rd-stale", model.get("is_stale"));
        root.setAttribute("aria-busy", String(model.get("is_stale")));
      }),
      follow(model, ["_html"], () => {
        if (model.get("_html")) setHtml(inside, model.get("_html"));
        else inside.replaceChildren(make("p", { class: "rd-placeholder" }, model.get("_placeholder")));
        root.scrollTop = 0;
      }),
    ];
    return () => ends.forEach((each) => each());
  },
};
