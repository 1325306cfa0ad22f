// One facet: its most frequent values with counts, a search where there are many.
import { make } from "./theme.js";

const count = (number) => number.toLocaleString("en-GB");
// More than fit without scrolling.
const MANY = 6;

export class Facet {
  constructor({ title, distinct }, tell, typed) {
    this.tell = tell;
    this.title = title;
    this.rows = new Map();
    this.clear = make("button", { type: "button", "aria-label": `all of ${title}`, hidden: true }, "all");
    this.list = make("div", { class: "rd-values" });
    this.more = make("p", { class: "rd-more" });
    const head = make("div", { class: "rd-facet-head" }, make("b", {}, title));
    if (distinct > MANY) {
      const search = make("input", { type: "search", "aria-label": `search ${title}`, placeholder: `search ${count(distinct)}`, maxlength: "1000", spellcheck: "false", autocomplete: "off" });
      this.typing = typed(search, (text) => tell({ type: "look", text }));
      this.search = search;
      head.append(search);
    } else head.append(make("span", { class: "rd-space" }));
    head.append(this.clear);
    this.node = make("div", { class: "rd-facet", role: "group", "aria-label": title }, head, this.list);
    this.clear.addEventListener("click", () => {
      if (this.search) this.typing.heard((this.search.value = ""));
      tell({ type: "clear" });
    });
    this.list.addEventListener("keydown", (event) => this.pressed(event));
    this.list.addEventListener("focusin", ({ target }) => this.reach(target));
    this.list.addEventListener("change", ({ target }) => tell({ type: "pick", code: Number(target.dataset.code), on: target.checked }));
  }

  draw({ values, left_out: left, chosen }) {
    this.clear.hidden = !chosen;
    const wanted = values.map((value) => this.row(value));
    // Rows that stay keep the focus; the others are put around them.
    const held = document.activeElement;
    this.list.replaceChildren(...wanted, ...(left ? [this.more] : []));
    if (held && this.list.contains(held)) held.focus({ preventScroll: true });
    this.reach(this.list.contains(held) ? held : this.list.querySelector("input"));
    const codes = new Set(values.map(({ code }) => code));
    for (const code of this.rows.keys()) if (!codes.has(code)) this.rows.delete(code);
    this.more.textContent = `and ${count(left)} more${this.search ? ": search for them" : ""}`;
    if (!values.length) this.list.replaceChildren(make("p", { class: "rd-more" }, "none"));
  }

  // One stop of the Tab key for a facet, whatever its length; the arrows go through its values.
  reach(box) {
    for (const each of this.list.querySelectorAll("input")) each.tabIndex = each === box ? 0 : -1;
  }

  pressed(event) {
    const boxes = [...this.list.querySelectorAll("input")];
    const at = boxes.indexOf(event.target);
    const goals = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: boxes.length - 1 };
    if (at < 0 || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(goals, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    boxes[Math.min(boxes.length - 1, Math.max(0, goals[event.key]))].focus();
  }

  row({ code, text, n, on }) {
    let row = this.rows.get(code);
    if (!row) {
      const box = make("input", { type: "checkbox" });
      box.dataset.code = String(code);
      row = make("label", { class: "rd-value", title: text }, box, make("span", {}, text), make("small"));
      this.rows.set(code, row);
    }
    row.firstChild.checked = on;
    row.lastChild.textContent = count(n);
    row.classList.toggle("rd-zero", !n);
    return row;
  }

  end() {
    this.typing?.end();
  }
}
