"""What can be said of any view by looking at it: names, contrast, width, markup that got through.

One rule: each check returns what is wrong, as short texts; a view passes when there is nothing.

Out of scope: what only a reader can judge. Pictures are taken for that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

CONTRAST = 4.5
"""Least contrast of text, as WCAG 2 AA asks."""
LARGE_CONTRAST = 3.0
"""The same from 24 px, or 18.7 px in bold."""

_HELPERS = """
const shown = (el) => el.checkVisibility({opacityProperty: true, visibilityProperty: true}) && el.getClientRects().length > 0;
const told = (el) => `${el.tagName.toLowerCase()}${el.id ? "#" + el.id : ""}` +
  `${typeof el.className === "string" && el.className ? "." + el.className.trim().split(/\\s+/).join(".") : ""}` +
  ` ${JSON.stringify((el.textContent || el.value || "").trim().slice(0, 40))}`;
const within = (root) => {
  const found = [];
  const walk = (node) => {
    for (const el of node.querySelectorAll("*")) { found.push(el); if (el.shadowRoot) walk(el.shadowRoot); }
  };
  walk(root.shadowRoot ?? root);
  return found;
};
"""
_NAMELESS = """(root) => {
  const asks = "button,input,select,textarea,a[href],[role=button],[role=checkbox],[role=combobox],[role=grid],[role=listbox]," +
    "[role=slider],[role=tab],[role=textbox],[role=img],[role=dialog],[role=progressbar],[tabindex='0'],canvas,svg[role]";
  const name = (el) => {
    const of = (ids) => ids.split(/\\s+/).map((id) => el.getRootNode().getElementById?.(id)?.textContent ?? "").join(" ");
    const labels = [...(el.labels ?? [])].map((label) => label.textContent).join(" ");
    const own = el.matches("input,select,textarea,[role=grid],[role=listbox],[role=slider],[role=textbox]") ? "" : el.textContent;
    return [el.getAttribute("aria-label"), of(el.getAttribute("aria-labelledby") ?? ""), labels, own, el.getAttribute("alt"),
      el.getAttribute("title"), el.querySelector?.(":scope > title")?.textContent].some((text) => text?.trim());
  };
  return within(root).filter((el) => el.matches(asks) && el.type !== "hidden" && shown(el) && !name(el)).map(told);
}"""
_FAINT = """(root, [least, large]) => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const colour = (text) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = "#000"; canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const up = (el) => el.assignedSlot ?? el.parentElement ?? el.getRootNode().host ?? null;
  const ground = (el) => {
    const layers = [];
    for (let at = el; at; at = up(at)) {
      const found = colour(getComputedStyle(at).backgroundColor);
      if (found[3] > 0) layers.push(found);
      if (found[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = new Map();
  for (const el of within(root)) {
    if (el.closest("svg, .jp-OutputPrompt") || !shown(el) || el.matches(":disabled, [aria-disabled=true]")) continue;
    if (![...el.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(el), under = ground(el);
    let dim = 1;
    for (let at = el; at; at = up(at)) dim *= Number(getComputedStyle(at).opacity);
    const ink = colour(style.color);
    const [a, b] = [light(over([...ink.slice(0, 3), ink[3] * dim], under)), light(under)].sort((x, y) => y - x);
    const size = parseFloat(style.fontSize), big = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < (big ? large : least)) {
      const key = `${el.tagName.toLowerCase()}.${el.className} ${style.color}`;
      if (!found.has(key)) found.set(key, `${ratio.toFixed(2)} ${told(el)}`);
    }
  }
  return [...found.values()];
}"""
_WIDE = """(root) => {
  const edge = root.getBoundingClientRect().right + 1;
  // A view may scroll what is wide; that JupyterLab's own box would scroll the whole of it is no excuse.
  const reached = (el) => {
    for (let at = el; at && at !== root; at = at.parentElement ?? at.getRootNode().host) {
      const style = getComputedStyle(at);
      if (/auto|scroll/.test(style.overflowX) && !/\\b(jp|lm)-/.test(at.className)) return true;
      if (/hidden|clip/.test(style.overflowX) && style.textOverflow === "ellipsis") return true;
    }
    return false;
  };
  return within(root).filter((el) => shown(el) && el.getBoundingClientRect().right > edge && !reached(el)).map(told).slice(0, 10);
}"""
_THROUGH = """(root) => {
  const bad = (el) => el.matches("script, iframe, object, embed, img[src=x], base, form[action]") ||
    [...el.attributes].some(({name, value}) => /^on/i.test(name) || /^\\s*javascript:/i.test(value));
  return within(root).filter(bad).map((el) => el.outerHTML.slice(0, 120));
}"""
_COUNT = "(root) => within(root).length"
NO_RING = " (no focus ring)"
PWNED = "window.__pwned !== undefined"


def _asked(of: Locator, script: str, arg: object = None) -> list[str]:
    found = of.evaluate(f"(root, arg) => {{ {_HELPERS} return ({script})(root, arg); }}", arg)
    return list(found)


def nameless(of: Locator) -> list[str]:
    """Return what one can operate and a screen reader cannot name."""
    return _asked(of, _NAMELESS)


def faint(of: Locator) -> list[str]:
    """Return texts whose contrast is too low, one of a kind, with the contrast."""
    return _asked(of, _FAINT, [CONTRAST, LARGE_CONTRAST])


def too_wide(of: Locator) -> list[str]:
    """Return what sticks out on the right, and cannot be scrolled to."""
    return _asked(of, _WIDE)


def got_through(of: Locator) -> list[str]:
    """Return elements that would run something."""
    return _asked(of, _THROUGH)


def elements(of: Locator) -> int:
    """Return how many elements there are: what makes a page slow."""
    return int(of.evaluate(f"(root) => {{ {_HELPERS} return ({_COUNT})(root); }}"))


def pwned(page: Page) -> bool:
    """Tell whether markup of the log ran."""
    return bool(page.evaluate(PWNED))


def stops(of: Locator, most: int = 200) -> list[str]:
    """Press Tab from the first thing one can operate until the focus leaves; return what had it, in order.

    Raises:
        AssertionError: the focus is still within after `most` times.
    """
    page, found = of.page, []
    of.locator(_OPERABLE).first.focus()
    while (at := of.evaluate(_FOCUSED)) is not None:
        found.append(str(at))
        assert len(found) < most, f"Tab does not leave: {found[-5:]}"
        page.keyboard.press("Tab")
    return list(dict.fromkeys(found))


_OPERABLE = "button:enabled, input:enabled, [tabindex='0']"
_FOCUSED = f"""(root) => {{ {_HELPERS}
  let at = document.activeElement;
  if (!root.contains(at)) return null;
  while (at.shadowRoot?.activeElement) at = at.shadowRoot.activeElement;
  const ringed = (el) => {{
    const style = getComputedStyle(el);
    return style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none";
  }};
  const near = [at, at.parentElement, ...at.querySelectorAll(".rd-active"), ...(at.labels ?? [])];
  // A table's ring is drawn over it, by its frame.
  const frame = getComputedStyle(at.parentElement, "::after");
  const framed = frame.content !== "none" && frame.borderStyle !== "none" && parseFloat(frame.borderWidth) > 0;
  const seen = framed || near.some((el) => el && ringed(el));
  const name = at.getAttribute("aria-label") ?? at.labels?.[0]?.textContent ?? told(at);
  return `${{name.trim()}}${{seen ? "" : "{NO_RING}"}}`;
}}"""
