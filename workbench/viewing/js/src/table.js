// A table of any length. It holds one window of rows; what is drawn beyond it is blank until the window comes.
import { tableFromIPC } from "@uwdata/flechette";
import { ownKeys } from "./keys.js";
import { follow, injectStyle, make, problemLine, stateClass } from "./theme.js";
import { drawn, measure, missing, moved, reveal, ROW, rowAt, topOf } from "./window.js";

const style = `
.rd-table{position:relative;display:flex;flex-direction:column;border:1px solid var(--rd-rule);border-radius:7px;overflow:hidden;width:calc(100% - 2px)}
.rd-table .rd-bar{display:flex;gap:10px;align-items:baseline;padding:5px 10px;border-bottom:1px solid var(--rd-rule);flex:none;height:32px;white-space:nowrap}
.rd-table .rd-bar b{font-weight:600;overflow:hidden;text-overflow:ellipsis}.rd-table .rd-bar span{color:var(--rd-soft)}
.rd-table .rd-grid{overflow:auto;flex:1;position:relative;overscroll-behavior:contain;overflow-anchor:none}
.rd-table .rd-grid:focus-visible{outline:none}
.rd-table:has(.rd-grid:focus-visible){box-shadow:0 0 0 1px var(--rd-tight)}
.rd-table:has(.rd-grid:focus-visible)::after{content:"";position:absolute;inset:0;border:2px solid var(--rd-tight);border-radius:6px;pointer-events:none;z-index:2}
.rd-table .rd-stale .rd-pane{opacity:.5}
.rd-table .rd-head{position:sticky;top:0;z-index:1;background:var(--rd-wash);border-bottom:1px solid var(--rd-rule)}
.rd-table .rd-head,.rd-table .rd-row{display:grid;min-width:max-content;width:100%;height:${ROW}px}
.rd-table .rd-row{position:absolute;left:0;border-bottom:1px solid var(--rd-rule);cursor:default}
.rd-table .rd-row:hover{background:var(--rd-wash)}
.rd-table .rd-row[aria-selected="true"]{background:var(--rd-pick)}
.rd-table .rd-grid:focus .rd-row.rd-active{box-shadow:inset 0 0 0 1.5px var(--rd-tight)}
.rd-table .rd-cell,.rd-table .rd-title{padding:0 9px;line-height:${ROW - 1}px;overflow:hidden;text-overflow:ellipsis;white-space:pre}
.rd-table .rd-title{color:var(--rd-soft)}
.rd-table .rd-title:has(button){padding:0}
.rd-table .rd-title button{border:0;border-radius:0;padding:0 9px;width:100%;height:100%;min-height:0;text-align:inherit;overflow:hidden;text-overflow:ellipsis;white-space:nowrap;display:block}
.rd-table .rd-title[aria-sort]:not([aria-sort="none"]){color:var(--rd-ink)}
.rd-table .rd-k-number{text-align:right}
.rd-table .rd-k-code{font:12px/${ROW - 1}px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.rd-table .rd-null{color:var(--rd-faint)}
.rd-table .rd-wait{color:var(--rd-faint)}
.rd-table .rd-empty{padding:14px 10px;color:var(--rd-soft)}
.rd-table .rd-problem{padding:3px 10px;border-top:1px solid var(--rd-rule);flex:none}
`;
const count = (number) => number.toLocaleString("en-GB");

class Grid {
  constructor(model, el) {
    this.model = model;
    this.me = Math.random().toString(36).slice(2, 10);
    this.asked = 0;
    this.awaited = null;
    this.have = null;
    this.first = 0;
    this.active = -1;
    this.version = -1;
    this.nodes = new Map();
    this.build(el);
    const [line, end] = problemLine(model);
    this.root.append(line);
    const onMessage = (content, buffers) => this.receive(content, buffers);
    model.on("msg:custom", onMessage);
    this.sized = new ResizeObserver(() => this.draw());
    this.sized.observe(this.grid);
    const ends = [
      end, ownKeys(this.root), () => model.off("msg:custom", onMessage), () => this.sized.disconnect(), () => cancelAnimationFrame(this.frame),
      follow(model, ["label", "_total", "is_stale"], () => this.says()),
      follow(model, ["_columns", "_sort"], () => this.heads()),
      follow(model, ["_version"], () => this.restart()),
      follow(model, ["_row"], () => this.picked()),
    ];
    this.end = () => ends.forEach((each) => each());
  }

  get total() { return this.model.get("_total"); }
  get columns() { return this.model.get("_columns"); }
  get lie() { return measure(this.total, Math.max(ROW, this.grid.clientHeight - ROW)); }

  build(el) {
    this.name = make("b");
    this.said = make("span", { role: "status" });
    this.head = make("div", { class: "rd-head", role: "row", "aria-rowindex": "1" });
    this.pane = make("div", { class: "rd-pane", role: "rowgroup" });
    this.grid = make("div", { class: "rd-grid", role: "grid", tabindex: "0" }, make("div", { role: "rowgroup", style: "display:contents" }, this.head), this.pane);
    this.root = make("div", { class: "rd-view rd-table" }, make("div", { class: "rd-bar" }, this.name, this.said), this.grid);
    this.root.style.height = `${this.model.get("_height")}px`;
    el.append(this.root);
    this.grid.addEventListener("scroll", () => this.scrolled());
    this.grid.addEventListener("wheel", (event) => this.wheeled(event), { passive: false });
    this.grid.addEventListener("keydown", (event) => this.pressed(event));
    this.pane.addEventListener("click", (event) => this.clicked(event));
    this.head.addEventListener("click", (event) => this.sorts(event.target.closest("button")?.dataset.column));
  }

  says() {
    const label = this.model.get("label");
    this.name.textContent = label;
    this.said.textContent = `${count(this.total)} row${this.total === 1 ? "" : "s"}`;
    this.grid.setAttribute("aria-label", label || "rows");
    this.grid.classList.toggle("rd-stale", this.model.get("is_stale"));
    this.grid.setAttribute("aria-busy", String(this.model.get("is_stale")));
  }

  heads() {
    const sort = this.model.get("_sort");
    this.grid.setAttribute("aria-colcount", String(this.columns.length));
    const held = document.activeElement?.closest?.(".rd-title") && this.head.contains(document.activeElement) ? document.activeElement.dataset.column : null;
    this.head.style.gridTemplateColumns = this.widths();
    this.head.replaceChildren(...this.columns.map((column, place) => {
      const is = sort.column === column.name ? (sort.descending ? "descending" : "ascending") : "none";
      const title = column.title + { ascending: " ▲", descending: " ▼", none: "" }[is];
      const inner = column.sortable ? make("button", { type: "button", tabindex: "0", title: column.help || `sort by ${column.title}` }, title) : title;
      if (column.sortable) inner.dataset.column = column.name;
      return make("div", { class: `rd-title rd-k-${column.kind === "number" ? "number" : "text"}`, role: "columnheader", "aria-sort": column.sortable && is, "aria-colindex": String(place + 1), title: column.help || false }, inner);
    }));
    if (held !== null) [...this.head.querySelectorAll("button")].find((each) => each.dataset.column === held)?.focus();
  }

  widths() {
    return this.columns.map(({ width }, place) => (place === this.columns.length - 1 ? `minmax(${width}px,1fr)` : `${width}px`)).join(" ");
  }

  sorts(column) {
    if (column === undefined) return;
    const sort = this.model.get("_sort");
    const mine = sort.column === column;
    // Up, down, as they came.
    this.model.send(mine && sort.descending ? { type: "sort", column: "", descending: false } : { type: "sort", column, descending: mine });
  }

  restart() {
    this.version = this.model.get("_version");
    this.have = this.awaited = null;
    this.grid.setAttribute("aria-rowcount", String(this.total + 1));
    this.active = Math.min(this.active, this.total - 1);
    this.first = Math.min(this.first, this.lie.rows);
    for (const row of this.nodes.values()) row.remove();
    this.nodes.clear();
    this.place();
    this.picked();
  }

  picked() {
    const row = this.model.get("_row");
    if (row >= 0 && row !== this.active) {
      this.active = row;
      this.first = reveal(row, this.first, this.lie);
      this.place();
    }
    this.draw();
  }

  // Put the bar where the first row wants it; the scroll event that follows is our own.
  place() {
    const top = Math.round(topOf(this.first, this.lie));
    this.pane.style.height = `${this.lie.height}px`;
    this.set = top;
    this.grid.scrollTop = top;
  }

  scrolled() {
    const top = this.grid.scrollTop;
    if (Math.abs(top - this.set) > 1) {
      this.first = rowAt(top, this.lie);
      this.set = top;
    }
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => this.draw());
  }

  // A pixel of a scaled bar is several rows: the wheel goes by rows then.
  wheeled(event) {
    if (!this.lie.isScaled || event.ctrlKey || event.shiftKey || !event.deltaY) return;
    event.preventDefault();
    const pixels = event.deltaMode === 1 ? event.deltaY * ROW : event.deltaMode === 2 ? event.deltaY * this.lie.seen * ROW : event.deltaY;
    this.first = Math.min(this.lie.rows, Math.max(0, this.first + pixels / ROW));
    this.place();
    this.draw();
  }

  pressed(event) {
    if (event.target !== this.grid || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = moved(event.key, this.active, this.lie, this.total);
    if (row !== null) {
      this.active = row;
      this.first = reveal(row, this.first, this.lie);
      this.place();
      this.draw();
    } else if ((event.key === "Enter" || event.key === " ") && this.active >= 0) {
      this.choose(this.active);
    } else return;
    // Jupyter has shortcuts on the same keys.
    event.preventDefault();
    event.stopPropagation();
  }

  clicked(event) {
    const node = event.target.closest(".rd-row");
    if (!node || String(getSelection())) return;
    this.active = Number(node.dataset.row);
    this.choose(this.active);
    this.draw();
  }

  choose(row) {
    this.model.send({ type: "select", version: this.version, row });
  }

  draw() {
    const lie = this.lie;
    const [from, to] = drawn(this.first, lie, this.total);
    for (const [row, node] of this.nodes) {
      if (row >= from && row < to) continue;
      node.remove();
      this.nodes.delete(row);
    }
    const offset = lie.isScaled ? this.grid.scrollTop - this.first * ROW : 0;
    for (let row = from; row < to; row += 1) this.row(row, offset);
    this.grid.setAttribute("aria-activedescendant", this.nodes.has(this.active) ? this.nodes.get(this.active).id : "");
    this.empty();
    this.ask(from, to);
  }

  empty() {
    if (this.total || !this.version) return this.none?.remove();
    this.none ??= make("div", { class: "rd-empty" }, "no rows");
    this.pane.after(this.none);
  }

  row(row, offset) {
    const isThere = Boolean(this.have && row >= this.have.start && row < this.have.start + this.have.n);
    let node = this.nodes.get(row);
    if (!node || (isThere && node.dataset.waits)) {
      const fresh = this.fill(row, isThere);
      node ? node.replaceWith(fresh) : this.insert(row, fresh);
      this.nodes.set(row, fresh);
      node = fresh;
    }
    node.style.top = `${row * ROW + offset + ROW}px`;
    node.setAttribute("aria-selected", String(row === this.model.get("_row")));
    node.classList.toggle("rd-active", row === this.active);
  }

  // In the order of the rows: screen readers read the document's.
  insert(row, node) {
    const after = [...this.pane.children].find((each) => Number(each.dataset.row) > row);
    this.pane.insertBefore(node, after ?? null);
  }

  fill(row, isThere) {
    const node = make("div", { class: "rd-row", role: "row", "aria-rowindex": String(row + 2), id: `rd-${this.me}-${row}` });
    node.dataset.row = String(row);
    node.style.gridTemplateColumns = this.widths();
    if (!isThere) node.dataset.waits = "1";
    node.append(...this.columns.map((column, place) => this.cell(column, place, row, isThere)));
    return node;
  }

  cell(column, place, row, isThere) {
    const value = isThere ? this.have.table.getChild(column.name)?.at(row - this.have.start) ?? null : null;
    const text = isThere ? value ?? "–" : place ? "" : "…";
    const node = make("div", { class: `rd-cell rd-k-${column.kind}`, role: "gridcell", "aria-colindex": String(place + 1) });
    if (!isThere) node.classList.add("rd-wait");
    else if (value === null) node.classList.add("rd-null");
    if (isThere && value !== null && column.kind === "state") node.append(make("span", { class: `rd-state ${stateClass(value)}` }, text));
    else node.textContent = text;
    if (text.length > 16) node.title = text;
    return node;
  }

  // One question at a time: while the reader drags the bar, only where it stops is asked for.
  ask(from, to) {
    const wanted = missing(from, to, this.have, this.total);
    if (!wanted || this.awaited) return;
    this.asked += 1;
    this.awaited = `${this.me}:${this.asked}`;
    this.model.send({ type: "window", id: this.awaited, version: this.version, ...wanted });
  }

  receive(content, buffers) {
    if (content?.id !== this.awaited || content.version !== this.version) return;
    this.awaited = null;
    if (content.type !== "rows") return;
    const view = buffers[0];
    const table = tableFromIPC(new Uint8Array(view.buffer, view.byteOffset, view.byteLength));
    this.have = { start: content.start, n: table.numRows, table };
    this.draw();
  }
}

export default {
  render({ model, el }) {
    injectStyle(el, "table", style);
    const grid = new Grid(model, el);
    return () => grid.end();
  },
};
