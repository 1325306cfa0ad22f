// Decisions over time as bars; a stretch that is drawn over them becomes the filter's time.
import { draw } from "./theme.js";

const HEIGHT = 46;
const BASE = 30;

export class Bars {
  constructor(tell) {
    this.tell = tell;
    this.bins = {};
    this.node = draw("svg", { class: "rd-bars", role: "img" });
    this.node.addEventListener("pointerdown", (event) => this.start(event));
    this.sized = new ResizeObserver(() => this.draw(this.bins));
    this.sized.observe(this.node);
  }

  draw(bins) {
    this.bins = bins;
    const width = this.node.clientWidth;
    const counts = bins.counts ?? [];
    if (!width || !counts.length) return;
    const most = Math.max(1, ...counts);
    const wide = width / counts.length;
    const bars = counts.map((n, at) => {
      const high = n ? Math.max(1.5, (n / most) * (BASE - 2)) : 0;
      const title = draw("title", {}, `${bins.edges[at]} UTC: ${n.toLocaleString("en-GB")}`);
      return draw("rect", { x: (at * wide).toFixed(2), width: Math.max(0.5, wide - 1).toFixed(2), y: (BASE - high).toFixed(2), height: high.toFixed(2) }, title);
    });
    this.node.setAttribute("aria-label", `decisions over time, ${bins.start} to ${bins.end} UTC; at most ${most.toLocaleString("en-GB")} in one of ${counts.length} stretches`);
    this.node.replaceChildren(draw("line", { x1: 0, x2: width, y1: BASE + 0.5, y2: BASE + 0.5 }), ...bars,
      draw("text", { x: 0, y: HEIGHT - 3 }, `${bins.start} UTC`),
      draw("text", { x: width, y: HEIGHT - 3, "text-anchor": "end" }, `${bins.end} UTC`));
  }

  at(event) {
    const { left, width } = this.node.getBoundingClientRect();
    const count = this.bins.counts.length;
    return Math.min(count - 1, Math.max(0, Math.floor(((event.clientX - left) / width) * count)));
  }

  start(event) {
    if (!this.bins.counts?.length || event.button) return;
    const from = this.at(event);
    let to = from;
    const wide = this.node.clientWidth / this.bins.counts.length;
    const band = draw("rect", { class: "rd-drawn", y: 0, height: BASE });
    const show = () => {
      band.setAttribute("x", Math.min(from, to) * wide);
      band.setAttribute("width", (Math.abs(to - from) + 1) * wide);
    };
    const move = (each) => { to = this.at(each); show(); };
    const stop = (each) => {
      this.node.removeEventListener("pointermove", move);
      this.node.removeEventListener("pointerup", stop);
      this.node.removeEventListener("pointercancel", stop);
      band.remove();
      if (each.type === "pointerup") this.tell(Math.min(from, to), Math.max(from, to));
    };
    show();
    this.node.append(band);
    this.node.setPointerCapture(event.pointerId);
    this.node.addEventListener("pointermove", move);
    this.node.addEventListener("pointerup", stop);
    this.node.addEventListener("pointercancel", stop);
  }

  end() {
    this.sized.disconnect();
  }
}
