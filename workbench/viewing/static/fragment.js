var m="button,input,select,textarea,summary,a[href],[tabindex],[contenteditable]";function c(e){let t=()=>{for(let n of[e,...e.querySelectorAll(m)])n.setAttribute("data-lm-suppress-shortcuts","true")},r=new MutationObserver(t);return r.observe(e,{childList:!0,subtree:!0}),t(),()=>r.disconnect()}var v="script,iframe,frame,frameset,object,embed,applet,base,meta,link,form,portal,template,noscript,svg script,audio,video,source[src],track",w=new Set(["href","src","srcset","action","formaction","xlink:href","data","poster","background","ping","to","values","from"]),x=new Set("a abbr article aside b bdi bdo blockquote br caption circle code col colgroup dd defs del details dfn div dl dt em figcaption figure footer g h1 h2 h3 h4 h5 h6 header hr i img ins kbd li line main mark nav ol p path picture polygon polyline pre q rect s samp section small source span strong style sub summary sup svg table tbody td text tfoot th thead time title tr tspan u ul var wbr button".split(" "));function y(e){let t=e.replace(/[\u0000-\u0020]+/g,"").toLowerCase();return t.startsWith("#")||/^data:image\/(png|jpeg|gif|webp|svg\+xml)[;,]/.test(t)}function l(e){let t=(n,o)=>String.fromCodePoint(Math.min(1114111,parseInt(o,16))),r=e.replace(/\/\*[\s\S]*?\*\//g,"").replace(/\\([0-9a-f]{1,6})\s?/gi,t).replaceAll("\\","").toLowerCase();return!/@import|url\s*\(|image-set\s*\(|image\s*\(|src\s*\(|expression\s*\(/.test(r)}function k(e){if(!x.has(e.localName))return e.replaceWith(...e.childNodes);if(e.localName==="style"&&!l(e.textContent))return e.remove();for(let{name:t,value:r}of[...e.attributes]){let n=t.toLowerCase();(n.startsWith("on")||n==="srcdoc"||n==="style"&&!l(r)||w.has(n)&&!y(r.split(/\s/)[0]))&&e.removeAttribute(t)}}function p(e,t){let r=new DOMParser().parseFromString(String(t),"text/html");for(let o of r.querySelectorAll(v))o.remove();for(let o of[...r.body.querySelectorAll("*")].reverse())k(o);let n=[...r.head.querySelectorAll("style")].filter(o=>l(o.textContent));e.replaceChildren(...n.map(o=>document.importNode(o,!0)),...[...r.body.childNodes].map(o=>document.importNode(o,!0)))}var u=`--rd-ink:#1b1f24;--rd-soft:#5b6470;--rd-faint:#6f7781;--rd-rule:#e4e7eb;--rd-wash:#f5f6f8;--rd-page:#fff;
--rd-good:#19694f;--rd-bad:#984308;--rd-note:#6d4f94;--rd-tight:#2b5c9e;--rd-wait:#735400;--rd-code:#eef0f3;--rd-pick:#e6effb;color-scheme:light;`,f=`--rd-ink:#e6e9ee;--rd-soft:#a5adb8;--rd-faint:#8d96a1;--rd-rule:#2c323a;--rd-wash:#1b2027;--rd-page:#13171c;
--rd-good:#4fbf97;--rd-bad:#e8935a;--rd-note:#b79ad6;--rd-tight:#82b0ee;--rd-wait:#dcb45c;--rd-code:#222831;--rd-pick:#18273d;color-scheme:dark;`,S=`
.rd-view{${u}}
@media (prefers-color-scheme:dark){.rd-view{${f}}}
body[data-jp-theme-light="true"] .rd-view,body.vscode-light .rd-view{${u}}
body[data-jp-theme-light="false"] .rd-view,body.vscode-dark .rd-view{${f}}
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
`;function b(e,t="",r=""){let n=e.getRootNode()instanceof ShadowRoot?e.getRootNode():document.head;for(let[o,a]of[["rd-view",S],[`rd-view-${t}`,r]]){if(!a||n.querySelector(`style[data-rd="${o}"]`))continue;let d=document.createElement("style");d.dataset.rd=o,d.textContent=a,n.append(d)}}function i(e,t={},...r){let n=document.createElement(e);for(let[o,a]of Object.entries(t)){if(o.startsWith("on")||typeof a=="function")throw new TypeError(`no handlers by attribute: ${o}`);a===!1||a===null||a===void 0||n.setAttribute(o,a===!0?"":a)}return n.append(...r),n}function s(e,t,r){for(let n of t)e.on(`change:${n}`,r);return r(),()=>t.forEach(n=>e.off(`change:${n}`,r))}function h(e){let t=i("p",{class:"rd-problem",role:"alert"}),r=s(e,["problem"],()=>{t.textContent=t.title=e.get("problem")});return[t,r]}var A=`
.rd-fragment{border:1px solid var(--rd-rule);border-radius:7px;overflow:auto;resize:vertical;width:calc(100% - 2px);overscroll-behavior:contain}
.rd-fragment.rd-stale>.rd-inside{opacity:.5}
.rd-fragment .rd-placeholder{color:var(--rd-soft);padding:12px 14px;margin:0}
.rd-fragment .rd-problem{padding:8px 14px}
.rd-fragment .rd-inside>.redecide.rd-cell{border-radius:0}
`,L={render({model:e,el:t}){b(t,"fragment",A);let[r,n]=h(e),o=i("div",{class:"rd-inside"}),a=i("div",{class:"rd-view rd-fragment",role:"region",tabindex:"0"},r,o);a.style.height=`${e.get("_height")}px`,t.append(a);let d=[n,c(a),s(e,["label"],()=>a.setAttribute("aria-label",e.get("label"))),s(e,["is_stale"],()=>{a.classList.toggle("rd-stale",e.get("is_stale")),a.setAttribute("aria-busy",String(e.get("is_stale")))}),s(e,["_html"],()=>{e.get("_html")?p(o,e.get("_html")):o.replaceChildren(i("p",{class:"rd-placeholder"},e.get("_placeholder"))),a.scrollTop=0})];return()=>d.forEach(g=>g())}};export{L as default};
