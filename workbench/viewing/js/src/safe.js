// The one way for HTML made by Python into a view. Python escapes what comes from the log; this is the second lock:
// what could run or load is taken out, whoever wrote it.
const dropped = "script,iframe,frame,frameset,object,embed,applet,base,meta,link,form,portal,template,noscript,svg script,audio,video,source[src],track";
const addresses = new Set(["href", "src", "srcset", "action", "formaction", "xlink:href", "data", "poster", "background", "ping", "to", "values", "from"]);
const tags = new Set(("a abbr article aside b bdi bdo blockquote br caption circle code col colgroup dd defs del details dfn div dl dt em " +
  "figcaption figure footer g h1 h2 h3 h4 h5 h6 header hr i img ins kbd li line main mark nav ol p path picture polygon polyline pre q rect " +
  "s samp section small source span strong style sub summary sup svg table tbody td text tfoot th thead time title tr tspan u ul var wbr button").split(" "));

/** Whether an address stays in the page: a fragment, or a picture that is given whole. */
export function isLocal(address) {
  const plain = address.replace(/[\u0000-\u0020]+/g, "").toLowerCase();
  return plain.startsWith("#") || /^data:image\/(png|jpeg|gif|webp|svg\+xml)[;,]/.test(plain);
}

/** Whether a style sheet or style attribute loads nothing. */
export function isPlainStyle(text) {
  const letter = (_, code) => String.fromCodePoint(Math.min(0x10ffff, parseInt(code, 16)));
  const plain = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/\\([0-9a-f]{1,6})\s?/gi, letter).replaceAll("\\", "").toLowerCase();
  return !/@import|url\s*\(|image-set\s*\(|image\s*\(|src\s*\(|expression\s*\(/.test(plain);
}

function clean(node) {
  if (!tags.has(node.localName)) return node.replaceWith(...node.childNodes);
  if (node.localName === "style" && !isPlainStyle(node.textContent)) return node.remove();
  for (const { name, value } of [...node.attributes]) {
    const known = name.toLowerCase();
    const bad = known.startsWith("on") || known === "srcdoc" || (known === "style" && !isPlainStyle(value))
      || (addresses.has(known) && !isLocal(value.split(/\s/)[0]));
    if (bad) node.removeAttribute(name);
  }
}

/** Replace what is in `el` by a fragment of HTML; what could run or load is left out. */
export function setHtml(el, html) {
  const found = new DOMParser().parseFromString(String(html), "text/html");
  for (const node of found.querySelectorAll(dropped)) node.remove();
  // Children first: what takes the place of a node that is not known was looked at before.
  for (const node of [...found.body.querySelectorAll("*")].reverse()) clean(node);
  const styles = [...found.head.querySelectorAll("style")].filter((style) => isPlainStyle(style.textContent));
  el.replaceChildren(...styles.map((each) => document.importNode(each, true)), ...[...found.body.childNodes].map((each) => document.importNode(each, true)));
}
