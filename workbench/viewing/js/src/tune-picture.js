// The versions tried as points, what is held up against what is let through. A point is a way back to its version.
import { follow, make } from "./theme.js";

export const pictureStyle = `
.rd-tune .rd-picture{border:1px solid var(--rd-rule);border-radius:7px;padding:4px 10px 2px;height:290px;position:relative;min-width:0}
.rd-tune .rd-picture svg{width:100%;height:250px;display:block;overflow:visible}
.rd-tune .rd-picture text{fill:var(--rd-soft);font-size:11px}
.rd-tune .rd-picture .rd-axis{stroke:var(--rd-rule)}
.rd-tune .rd-picture .rd-line{fill:none;stroke:var(--rd-good);stroke-width:1.5;stroke-dasharray:4 3}
.rd-tune .rd-picture .rd-point{cursor:pointer}
.rd-tune .rd-picture .rd-point circle{fill:var(--rd-faint)}
.rd-tune .rd-picture .rd-point.rd-front circle{fill:var(--rd-good)}
.rd-tune .rd-picture .rd-point.rd-now circle{fill:var(--rd-tight);stroke:var(--rd-page);stroke-width:1.5}
.rd-tune .rd-picture .rd-point:focus-visible{outline:2px solid var(--rd-ink);outline-offset:1px}
.rd-tune .rd-picture .rd-base{fill:none;stroke:var(--rd-ink);stroke-width:1.5}
.rd-tune .rd-picture p{margin:0;height:34px;font-size:12px;line-height:17px;color:var(--rd-soft);overflow:hidden;overflow-wrap:anywhere}
`;

const SVG = "http://www.w3.org/2000/svg";
const SIZE = { width: 520, height: 250, left: 64, right: 16, top: 22, bottom: 38 };

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The least and greatest of some numbers, with room on both sides; never below zero, and never empty. */
export function span(numbers) {
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  const room = Math.max(1, (high - low) * 0.12, high - low ? 0 : high * 0.05);
  return [Math.max(0, Math.floor(low - room)), Math.ceil(high + room)];
}

/** The corners of a front from the left: each is the least up to there, so nothing below and left of the line was tried. */
export function steps(points) {
  const sorted = points.filter(({ front }) => front).sort((a, b) => a.x - b.x || a.y - b.y);
  const found = [];
  for (const { x, y } of sorted) {
    const last = found.at(-1);
    if (last && last.y <= y) continue;
    if (last) found.push({ x, y: last.y });
    found.push({ x, y });
  }
  return found;
}

const count = (number) => number.toLocaleString("en-GB");

export class Picture {
  constructor(model) {
    this.model = model;
    this.drawing = svg("svg", { viewBox: `0 0 ${SIZE.width} ${SIZE.height}`, role: "group", preserveAspectRatio: "none" });
    this.said = make("p", { "aria-live": "polite" });
    this.el = make("section", { class: "rd-picture", "aria-label": "versions tried" }, this.drawing, this.said);
    this.drawing.addEventListener("keydown", (event) => this.walk(event));
    this.drawing.addEventListener("click", (event) => this.choose(event.target.closest(".rd-point")));
    for (const kind of ["pointerover", "focusin"]) {
      this.drawing.addEventListener(kind, (event) => this.tell(event.target.closest?.(".rd-point")));
    }
    this.drawing.addEventListener("pointerleave", () => this.tell(null));
    this.sized = new ResizeObserver(() => this.draw());
    this.sized.observe(this.drawing);
    this.end = follow(model, ["_picture"], () => this.draw());
  }

  draw() {
    const { points = [], x, y, baseline, current, left_out: left } = this.model.get("_picture");
    if (!points.length) return;
    this.width = Math.max(240, this.drawing.clientWidth || SIZE.width);
    this.drawing.setAttribute("viewBox", `0 0 ${this.width} ${SIZE.height}`);
    this.drawing.setAttribute("aria-label", `${x.title} from left to right, ${y.title} from bottom to top; less is better`);
    const across = span([...points, baseline].map((point) => point.x));
    const up = span([...points, baseline].map((point) => point.y));
    const at = ({ x: a, y: b }) => ({
      x: SIZE.left + ((a - across[0]) / (across[1] - across[0])) * (this.width - SIZE.left - SIZE.right),
      y: SIZE.height - SIZE.bottom - ((b - up[0]) / (up[1] - up[0])) * (SIZE.height - SIZE.top - SIZE.bottom),
    });
    const focused = this.drawing.contains(document.activeElement) ? document.activeElement.dataset.number : null;
    const marks = [...points].sort((a, b) => (a.number === current) - (b.number === current) || a.front - b.front);
    this.points = [...points].sort((a, b) => a.x - b.x || a.y - b.y || a.number - b.number);
    this.drawing.replaceChildren(
      ...this.axes(across, up, x, y), this.front(points, at), ...marks.map((point) => this.point(point, at(point), point.number === current)),
      this.base(at(baseline)));
    if (focused !== null) this.drawing.querySelector(`[data-number="${CSS.escape(focused)}"]`)?.focus();
    this.rest = `${count(points.length + left)} tried; filled green: nothing tried beats it; blue: now; square: baseline. Less is better on both.`;
    this.tell(null);
  }

  axes(across, up, x, y) {
    const bottom = SIZE.height - SIZE.bottom;
    const right = this.width - SIZE.right;
    const text = (at, said, anchor) => svg("text", { x: at[0], y: at[1], "text-anchor": anchor }, said);
    return [
      svg("path", { class: "rd-axis", fill: "none", d: `M${SIZE.left},${SIZE.top - 6}V${bottom}H${right}` }),
      text([SIZE.left, bottom + 15], count(across[0]), "start"), text([right, bottom + 15], count(across[1]), "end"),
      text([(SIZE.left + right) / 2, bottom + 30], `${x.title} →`, "middle"),
      text([SIZE.left - 6, bottom], count(up[0]), "end"), text([SIZE.left - 6, SIZE.top + 3], count(up[1]), "end"),
      text([4, 12], `↑ ${y.title}`, "start"),
    ];
  }

  front(points, at) {
    const corners = steps(points).map(at).map(({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`);
    return svg("polyline", { class: "rd-line", points: corners.join(" ") });
  }

  base({ x, y }) {
    const square = svg("rect", { class: "rd-base", x: x - 7, y: y - 7, width: 14, height: 14, rx: 2, "pointer-events": "none" });
    square.append(svg("title", {}, "the baseline"));
    return square;
  }

  point({ number, front, text, said }, { x, y }, isNow) {
    const names = ["rd-point", front ? "rd-front" : "", isNow ? "rd-now" : ""].filter(Boolean).join(" ");
    const node = svg("g", {
      class: names, role: "button", "data-number": number, tabindex: isNow ? 0 : -1,
      "aria-label": `${text}. ${said}${front ? ", on the front" : ""}${isNow ? ", shown now" : ""}`, "aria-pressed": String(isNow),
    });
    node.append(
      svg("circle", { cx: x, cy: y, r: 11, style: "fill:transparent;stroke:none" }),
      svg("circle", { cx: x, cy: y, r: isNow ? 6 : front ? 4.5 : 3.5 }));
    return node;
  }

  tell(node) {
    const number = node ? Number(node.dataset.number) : null;
    const point = number === null ? null : this.points.find((each) => each.number === number);
    this.said.textContent = point ? `${point.text}. ${point.said}. Click to go back to it.` : this.rest ?? "";
  }

  choose(node) {
    if (node) this.model.send({ type: "back", number: Number(node.dataset.number) });
  }

  walk(event) {
    const node = event.target.closest(".rd-point");
    if (!node) return;
    if (event.key === "Enter" || event.key === " ") {
      this.choose(node);
      event.preventDefault();
      return;
    }
    const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!step) return;
    const at = this.points.findIndex((each) => each.number === Number(node.dataset.number));
    const next = this.points[(at + step + this.points.length) % this.points.length];
    this.drawing.querySelector(`[data-number="${next.number}"]`)?.focus();
    event.preventDefault();
  }

  destroy() {
    this.sized.disconnect();
    this.end();
  }
}
