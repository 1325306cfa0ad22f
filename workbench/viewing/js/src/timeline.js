// The decisions of a session on a time axis: one mark each, its shape and colour the verdict.
import { lanes, places } from "./timeline-places.js";
import { ownKeys } from "./keys.js";
import { draw, follow, injectStyle, make, problemLine, stateClass, stateMark } from "./theme.js";

const style = `
.rd-timeline{border:1px solid var(--rd-rule);border-radius:7px;padding:5px 10px 4px;height:126px;overflow:hidden;width:calc(100% - 2px)}
.rd-timeline .rd-line{display:flex;gap:12px;align-items:center;height:28px;white-space:nowrap}
.rd-timeline .rd-line b{font-weight:600;overflow:hidden;text-overflow:ellipsis}
.rd-timeline .rd-line .rd-now{color:var(--rd-soft);overflow:hidden;text-overflow:ellipsis;flex:1}
.rd-timeline svg{display:block;width:100%;height:84px;outline-offset:-2px;overflow:visible}
.rd-timeline .rd-mark{fill:var(--rd-hue);stroke:var(--rd-page);stroke-width:1;cursor:pointer}
.rd-timeline .rd-mark.rd-on{stroke:var(--rd-ink);stroke-width:2}
.rd-timeline .rd-halo{fill:none;stroke:var(--rd-ink);stroke-width:1.5}
.rd-timeline .rd-axis{stroke:var(--rd-rule)}
.rd-timeline text{fill:var(--rd-soft);font-size:11px}
.rd-timeline .rd-placeholder{color:var(--rd-soft)}
`;
const HEIGHT = 84;
const AXIS = 66;
const LANE = 13;
const shapes = {
  circle: "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0Z", diamond: "M0 -6L6 0L0 6L-6 0Z", triangle: "M0 -6L5.6 4.5L-5.6 4.5Z",
  square: "M-4.6 -4.6H4.6V4.6H-4.6Z", ring: "M5 0A5 5 0 1 1 -5 0A5 5 0 1 1 5 0ZM3 0A3 3 0 1 0 -3 0A3 3 0 1 0 3 0Z",
};

class Timeline {
  constructor(model, el) {
    this.model = model;
    this.byStep = false;
    this.me = Math.random().toString(36).slice(2, 10);
    const [line, end] = problemLine(model);
    this.said = make("b");
    this.now = make("span", { class: "rd-now", role: "status" });
    this.button = make("button", { type: "button", "aria-pressed": "false", title: "space the decisions evenly" }, "even steps");
    this.svg = draw("svg", { role: "listbox", tabindex: "0", "aria-orientation": "horizontal" });
    this.root = make("div", { class: "rd-view rd-timeline" }, make("div", { class: "rd-line" }, this.said, this.now, this.button), line, this.svg);
    el.append(this.root);
    this.button.addEventListener("click", () => {
      this.byStep = !this.byStep;
      this.button.setAttribute("aria-pressed", String(this.byStep));
      this.redraw();
    });
    this.svg.addEventListener("click", (event) => this.choose(event.target.closest("[data-mark]")?.dataset.mark));
    this.svg.addEventListener("keydown", (event) => this.pressed(event));
    const sized = new ResizeObserver(() => this.redraw());
    sized.observe(this.svg);
    const ends = [
      end, ownKeys(this.root), () => sized.disconnect(),
      follow(model, ["_marks"], () => this.redraw()),
      follow(model, ["_said", "_chosen"], () => this.says()),
    ];
    this.end = () => ends.forEach((each) => each());
  }

  get marks() { return this.model.get("_marks"); }

  choose(mark) {
    if (mark !== undefined) this.model.send({ type: "choose", mark: Number(mark) });
  }

  pressed(event) {
    const last = this.marks.length - 1;
    const at = this.model.get("_chosen");
    const goals = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last };
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(goals, event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const mark = Math.min(last, Math.max(0, goals[event.key]));
    if (mark !== at) this.choose(mark);
  }

  says() {
    const mark = this.marks[this.model.get("_chosen")];
    this.said.textContent = this.model.get("_said") || "session";
    this.now.textContent = mark ? `${mark.at} · ${mark.text}` : "";
    this.svg.setAttribute("aria-label", this.model.get("_said") || "session");
    this.button.hidden = !mark;
    this.svg.setAttribute("tabindex", mark ? "0" : "-1");
    const chosen = String(this.model.get("_chosen"));
    for (const node of this.svg.querySelectorAll("[data-mark]")) {
      const on = node.dataset.mark === chosen;
      node.setAttribute("aria-selected", String(on));
      node.classList.toggle("rd-on", on);
    }
    this.svg.setAttribute("aria-activedescendant", mark ? `rd-${this.me}-${chosen}` : "");
    this.halo();
  }

  halo() {
    this.ring?.remove();
    const node = this.svg.querySelector(`[data-mark="${this.model.get("_chosen")}"]`);
    if (!node) return;
    this.ring = draw("circle", { class: "rd-halo", r: 9, transform: node.getAttribute("transform") });
    this.svg.append(this.ring);
  }

  redraw() {
    const width = this.svg.clientWidth;
    const marks = this.marks;
    if (!width) return;
    this.svg.replaceChildren(draw("line", { class: "rd-axis", x1: 0, x2: width, y1: AXIS + 0.5, y2: AXIS + 0.5 }));
    if (!marks.length) {
      this.svg.append(draw("text", { x: 0, y: 34 }, "The decisions of the chosen one's session."));
      return this.says();
    }
    const xs = places(marks.map((mark) => mark.t), width, this.byStep);
    const rows = lanes(xs, LANE, Math.floor((AXIS - 6) / LANE));
    this.svg.append(...marks.map((mark, at) => this.mark(mark, at, xs[at], AXIS - 9 - rows[at] * LANE)));
    const ends = [draw("text", { x: 0, y: HEIGHT - 4 }, marks[0].at)];
    if (marks.length > 1) ends.push(draw("text", { x: width, y: HEIGHT - 4, "text-anchor": "end" }, marks.at(-1).at));
    this.svg.append(...ends);
    this.says();
  }

  mark(mark, at, x, y) {
    const node = draw("path", {
      class: `rd-mark ${stateClass(mark.verdict)}`, d: shapes[stateMark(mark.verdict)], transform: `translate(${x.toFixed(1)} ${y})`,
      role: "option", "aria-label": `${mark.at}, ${mark.text}`, id: `rd-${this.me}-${at}`,
    }, draw("title", {}, `${mark.at} · ${mark.text}`));
    node.dataset.mark = String(at);
    return node;
  }
}

export default {
  render({ model, el }) {
    injectStyle(el, "timeline", style);
    const timeline = new Timeline(model, el);
    return () => timeline.end();
  },
};
