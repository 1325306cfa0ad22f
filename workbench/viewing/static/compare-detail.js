var C="button,input,select,textarea,summary,a[href],[tabindex],[contenteditable]";function m(e){let r=()=>{for(let o of[e,...e.querySelectorAll(C)])o.setAttribute("data-lm-suppress-shortcuts","true")},t=new MutationObserver(r);return t.observe(e,{childList:!0,subtree:!0}),r(),()=>t.disconnect()}var N="script,iframe,frame,frameset,object,embed,applet,base,meta,link,form,portal,template,noscript,svg script,audio,video,source[src],track",j=new Set(["href","src","srcset","action","formaction","xlink:href","data","poster","background","ping","to","values","from"]),$=new Set("a abbr article aside b bdi bdo blockquote br caption circle code col colgroup dd defs del details dfn div dl dt em figcaption figure footer g h1 h2 h3 h4 h5 h6 header hr i img ins kbd li line main mark nav ol p path picture polygon polyline pre q rect s samp section small source span strong style sub summary sup svg table tbody td text tfoot th thead time title tr tspan u ul var wbr button".split(" "));function A(e){let r=e.replace(/[\u0000-\u0020]+/g,"").toLowerCase();return r.startsWith("#")||/^data:image\/(png|jpeg|gif|webp|svg\+xml)[;,]/.test(r)}function p(e){let r=(o,n)=>String.fromCodePoint(Math.min(1114111,parseInt(n,16))),t=e.replace(/\/\*[\s\S]*?\*\//g,"").replace(/\\([0-9a-f]{1,6})\s?/gi,r).replaceAll("\\","").toLowerCase();return!/@import|url\s*\(|image-set\s*\(|image\s*\(|src\s*\(|expression\s*\(/.test(t)}function q(e){if(!$.has(e.localName))return e.replaceWith(...e.childNodes);if(e.localName==="style"&&!p(e.textContent))return e.remove();for(let{name:r,value:t}of[...e.attributes]){let o=r.toLowerCase();(o.startsWith("on")||o==="srcdoc"||o==="style"&&!p(t)||j.has(o)&&!A(t.split(/\s/)[0]))&&e.removeAttribute(r)}}function g(e,r){let t=new DOMParser().parseFromString(String(r),"text/html");for(let n of t.querySelectorAll(N))n.remove();for(let n of[...t.body.querySelectorAll("*")].reverse())q(n);let o=[...t.head.querySelectorAll("style")].filter(n=>p(n.textContent));e.replaceChildren(...o.map(n=>document.importNode(n,!0)),...[...t.body.childNodes].map(n=>document.importNode(n,!0)))}var v=`--rd-ink:#1b1f24;--rd-soft:#5b6470;--rd-faint:#6f7781;--rd-rule:#e4e7eb;--rd-wash:#f5f6f8;--rd-page:#fff;
--rd-good:#19694f;--rd-bad:#984308;--rd-note:#6d4f94;--rd-tight:#2b5c9e;--rd-wait:#735400;--rd-code:#eef0f3;--rd-pick:#e6effb;color-scheme:light;`,w=`--rd-ink:#e6e9ee;--rd-soft:#a5adb8;--rd-faint:#8d96a1;--rd-rule:#2c323a;--rd-wash:#1b2027;--rd-page:#13171c;
--rd-good:#4fbf97;--rd-bad:#e8935a;--rd-note:#b79ad6;--rd-tight:#82b0ee;--rd-wait:#dcb45c;--rd-code:#222831;--rd-pick:#18273d;color-scheme:dark;`,E=`
.rd-view{${v}}
@media (prefers-color-scheme:dark){.rd-view{${w}}}
body[data-jp-theme-light="true"] .rd-view,body.vscode-light .rd-view{${v}}
body[data-jp-theme-light="false"] .rd-view,body.vscode-dark .rd-view{${w}}
.rd-view{font:13px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif;color:var(--rd-ink);
  font-variant-numeric:tabular-nums;text-align:left;background:var(--rd-page);min-width:0}
.rd-view,.rd-view *{box-sizing:border-box}
.rd-view button,.rd-view input,.rd-view select{font:inherit;color:inherit;background:none;border:1px solid var(--rd-rule);
  border-radius:5px;padding:2px 8px;margin:0;min-height:26px}
.rd-view button{cursor:pointer}
.rd-view button:hover{background:var(--rd-wash)}
.rd-view button:disabled{cursor:default;color:var(--rd-faint);background:none}
.rd-view input::placeholder{color:var(--rd-faint);opacity:1}
.rd-view :focus-visible{outline:2px solid var(--rd-tight);outline-offset:-1px}
.rd-view .rd-mono{font:12.5px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
.rd-view .rd-hidden{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}
.rd-view .rd-problem{color:var(--rd-bad);margin:0;min-height:0;overflow-wrap:anywhere}
.rd-view .rd-problem:empty{display:none}
.rd-view .rd-s-good{--rd-hue:var(--rd-good)}.rd-view .rd-s-bad{--rd-hue:var(--rd-bad)}
.rd-view .rd-s-note{--rd-hue:var(--rd-note)}.rd-view .rd-s-tight{--rd-hue:var(--rd-tight)}
.rd-view .rd-s-wait{--rd-hue:var(--rd-wait)}
.rd-view .rd-s-none{--rd-hue:var(--rd-soft)}
.rd-view .rd-state{color:var(--rd-hue);background:color-mix(in srgb,var(--rd-hue) 11%,transparent);border-radius:9px;
  padding:0 7px;font-size:12px;white-space:nowrap}
`;function x(e,r="",t=""){let o=e.getRootNode()instanceof ShadowRoot?e.getRootNode():document.head;for(let[n,a]of[["rd-view",E],[`rd-view-${r}`,t]]){if(!a||o.querySelector(`style[data-rd="${n}"]`))continue;let d=document.createElement("style");d.dataset.rd=n,d.textContent=a,o.append(d)}}function i(e,r={},...t){let o=document.createElement(e);for(let[n,a]of Object.entries(r)){if(n.startsWith("on")||typeof a=="function")throw new TypeError(`no handlers by attribute: ${n}`);a===!1||a===null||a===void 0||o.setAttribute(n,a===!0?"":a)}return o.append(...t),o}function l(e,r,t){for(let o of r)e.on(`change:${o}`,t);return t(),()=>r.forEach(o=>e.off(`change:${o}`,t))}function y(e){let r=i("p",{class:"rd-problem",role:"alert"}),t=l(e,["problem"],()=>{r.textContent=r.title=e.get("problem")});return[r,t]}var L=`
.rd-compare-detail{box-sizing:border-box;border:1px solid var(--rd-rule);border-radius:7px;width:100%;margin-top:6px;height:460px;display:flex;flex-direction:column}
.rd-compare-detail .rd-line{display:flex;gap:8px;align-items:center;flex:none;height:34px;padding:0 10px;border-bottom:1px solid var(--rd-rule);white-space:nowrap;overflow-x:auto}
.rd-compare-detail .rd-line b{font-weight:600}
.rd-compare-detail .rd-line span{color:var(--rd-soft)}
.rd-compare-detail button[aria-pressed="true"]{border-color:var(--rd-tight);box-shadow:inset 0 0 0 1px var(--rd-tight);font-weight:600}
.rd-compare-detail .rd-body{overflow:auto;flex:1;padding:4px 10px;overscroll-behavior:contain}
.rd-compare-detail .rd-body.rd-busy{opacity:.5}
.rd-compare-detail .rd-problem{padding:3px 10px}
.rd-compare-detail .rd-hint{color:var(--rd-soft);text-align:center;margin:170px 0 0}
`,H={render({model:e,el:r}){x(r,"compare-detail",L);let t=i("div",{class:"rd-line"}),o=i("div",{class:"rd-body",tabindex:"0",role:"region","aria-label":"the chosen decision under every version"}),[n,a]=y(e),d=i("section",{class:"rd-view rd-compare-detail","aria-label":"decision"},t,n,o);r.append(d),t.addEventListener("click",s=>{let c=s.target.closest("[data-about]")?.dataset.about;c!==void 0&&e.send({type:"about",candidate:Number(c)})});let k=[a,m(d),l(e,["_decision","_about","_is_busy"],()=>{let s=e.get("_names"),c=t.contains(document.activeElement)?document.activeElement.dataset.about:void 0,u=s.length<2?[]:s.map((_,f)=>{let h=i("button",{type:"button","aria-pressed":String(f===e.get("_about"))},_);return h.dataset.about=String(f),h}),b=e.get("_decision"),S=e.get("_is_busy")?"working it out…":"";t.replaceChildren(i("b",{},b?`Decision ${b}`:"Decision"),...u,i("span",{role:"status"},S)),u[Number(c)]?.focus({preventScroll:!0}),o.classList.toggle("rd-busy",e.get("_is_busy"))}),l(e,["_html"],()=>{e.get("_html")?g(o,e.get("_html")):o.replaceChildren(i("p",{class:"rd-hint"},"Choose a decision in the list: what each version says of it, with clauses and contexts, appears here.")),o.scrollTop=0})];return()=>k.forEach(s=>s())}};export{H as default};
