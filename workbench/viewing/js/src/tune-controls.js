// Sliders of tunable literals. A slider moves over places; what a place means is text that Python wrote.
import { Newest } from "./texts.js";
import { follow, make } from "./theme.js";

export const controlsStyle = `
.rd-tune .rd-controls{border:1px solid var(--rd-rule);border-radius:7px;padding:6px 12px;height:150px;overflow-y:auto}
.rd-tune .rd-control{display:grid;grid-template-columns:minmax(0,1fr) 112px;gap:0 12px;align-items:center;padding:4px 0}
.rd-tune .rd-control label{font-weight:600;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-tune .rd-control label small{font-weight:400;color:var(--rd-soft)}
.rd-tune .rd-control input[type="range"]{width:100%;padding:0;border:0;min-height:20px;accent-color:var(--rd-tight)}
.rd-tune .rd-control input[type="text"],.rd-tune .rd-control select{width:100%;text-align:right;grid-row:1 / span 2;grid-column:2}
.rd-tune .rd-control input[type="checkbox"]{justify-self:end;grid-column:2;grid-row:1 / span 2;width:18px;accent-color:var(--rd-tight)}
.rd-tune .rd-control .rd-allowed{color:var(--rd-soft);font-size:12px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-tune .rd-none{color:var(--rd-soft);margin:4px 0}
.rd-tune .rd-none code{color:var(--rd-ink);font-size:12px;overflow-wrap:anywhere}
`;

/** The place on a slider that is nearest to a value: exact if it is one, else by number. */
export function nearest(positions, value) {
  const exact = positions.indexOf(value);
  if (exact >= 0) return exact;
  const wanted = Number(value);
  let best = 0;
  for (let place = 1; place < positions.length; place++) {
    if (Math.abs(Number(positions[place]) - wanted) < Math.abs(Number(positions[best]) - wanted)) best = place;
  }
  return best;
}

export class Controls {
  constructor(model, me) {
    this.model = model;
    this.me = me;
    this.el = make("section", { class: "rd-controls", "aria-label": "tunable values" });
    this.drawn = new Map();
    this.senders = new Map();
    this.ends = [
      follow(model, ["_controls"], () => this.draw()),
      follow(model, ["_seen"], () => this.hear()),
      follow(model, ["_status"], () => this.lock()),
    ];
  }

  hear() {
    const seen = this.model.get("_seen")[this.me] ?? {};
    let isNews = false;
    for (const [key, sender] of this.senders) {
      const wasAhead = sender.isAhead;
      sender.answer(seen[`=${key}`] ?? 0);
      isNews ||= wasAhead && !sender.isAhead;
    }
    if (isNews) this.values();
  }

  draw() {
    const controls = this.model.get("_controls");
    const shape = JSON.stringify(controls.map(({ value, line, ...rest }) => rest));
    if (shape !== this.shape) {
      this.shape = shape;
      this.drawn = new Map(controls.map((control) => [control.key, this.control(control)]));
      this.el.replaceChildren(...(this.drawn.size ? [...this.drawn.values()].map(({ el }) => el) : [none()]));
      this.lock();
    }
    this.values();
  }

  // What Python says the values are, unless the hand on the slider is ahead of it.
  values() {
    for (const { key, value } of this.model.get("_controls")) {
      if (!this.senders.get(key)?.isAhead) this.drawn.get(key)?.set(value);
    }
  }

  lock() {
    const isWrong = this.model.get("_status").phase === "error";
    for (const input of this.el.querySelectorAll("input,select")) input.disabled = isWrong;
  }

  give(key, value) {
    if (!this.senders.has(key)) this.senders.set(key, new Newest((message) => this.model.send(message)));
    this.senders.get(key).give({ type: "move", key, value, client: this.me });
  }

  control(control) {
    const id = `${this.me}-${control.key}`;
    const label = make("label", { for: id, title: `${control.policy} · ${control.file}` }, control.name, " ", make("small", {}, control.policy));
    const el = make("div", { class: "rd-control" }, label);
    const set = { range: range, choice: choice, switch: toggle, field: field }[control.control](this, control, id, el);
    return { el, set };
  }

  destroy() {
    for (const sender of this.senders.values()) sender.stop();
    this.ends.forEach((end) => end());
  }
}

function none() {
  const example = '@tune("{\\"limit\\": {\\"value\\": 5000, \\"min\\": 0, \\"max\\": 20000}}")';
  return make("p", { class: "rd-none" }, "No policy declares a tunable value. Write, above a policy with that literal: ", make("code", {}, example));
}

function written(controls, control, id, el) {
  const input = make("input", { id, type: "text", autocomplete: "off", spellcheck: "false", title: control.allowed, "aria-label": `${control.name} of ${control.policy}, ${control.allowed}` });
  const give = () => input.value !== input.dataset.known && controls.give(control.key, (input.dataset.known = input.value));
  input.addEventListener("change", give);
  input.addEventListener("keydown", (event) => event.key === "Enter" && give());
  el.append(input);
  return (value) => {
    input.dataset.known = value;
    input.value = value;
  };
}

function range(controls, control, id, el) {
  const { positions } = control;
  const slider = make("input", {
    id: `${id}-range`, type: "range", min: "0", max: String(positions.length - 1), step: "1", title: control.allowed,
    "aria-label": `${control.name} of ${control.policy}`,
  });
  el.append(slider);
  const write = written(controls, control, id, el);
  const show = (value) => {
    slider.value = String(nearest(positions, value));
    slider.setAttribute("aria-valuetext", value);
    write(value);
  };
  slider.addEventListener("input", () => {
    const value = positions[Number(slider.value)];
    slider.setAttribute("aria-valuetext", value);
    write(value);
    controls.give(control.key, value);
  });
  return show;
}

function field(controls, control, id, el) {
  el.append(make("span", { class: "rd-allowed", title: control.allowed }, control.allowed));
  return written(controls, control, id, el);
}

function choice(controls, control, id, el) {
  const list = make("select", { id }, ...control.positions.map((value) => make("option", { value }, value)));
  el.append(make("span", { class: "rd-allowed", title: control.allowed }, control.allowed), list);
  list.addEventListener("change", () => controls.give(control.key, list.value));
  return (value) => { list.value = value; };
}

function toggle(controls, control, id, el) {
  const box = make("input", { id, type: "checkbox" });
  el.append(box);
  box.addEventListener("change", () => controls.give(control.key, String(box.checked)));
  return (value) => { box.checked = value === "true"; };
}
