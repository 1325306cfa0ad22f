var P=[.01,.02,.05,.1,.2,.5,1];function z(t){let e=Math.max(0,...t.filter(o=>o!==null&&Number.isFinite(o)));return P.find(o=>e<=o)??1}function y(t,e,o){if(t===null||e===null||!(o>0))return null;let d=a=>Math.min(100,Math.max(0,100*a/o));return{left:d(t),width:Math.max(0,d(e)-d(t))}}function $(t){return`${Number((100*t).toPrecision(3))} %`}var S=`--rd-ink:#1b1f24;--rd-soft:#5b6470;--rd-faint:#6f7781;--rd-rule:#e4e7eb;--rd-wash:#f5f6f8;--rd-page:#fff;
--rd-good:#19694f;--rd-bad:#984308;--rd-note:#6d4f94;--rd-tight:#2b5c9e;--rd-wait:#735400;--rd-code:#eef0f3;--rd-pick:#e6effb;color-scheme:light;`,T=`--rd-ink:#e6e9ee;--rd-soft:#a5adb8;--rd-faint:#8d96a1;--rd-rule:#2c323a;--rd-wash:#1b2027;--rd-page:#13171c;
--rd-good:#4fbf97;--rd-bad:#e8935a;--rd-note:#b79ad6;--rd-tight:#82b0ee;--rd-wait:#dcb45c;--rd-code:#222831;--rd-pick:#18273d;color-scheme:dark;`,K=`
.rd-view{${S}}
@media (prefers-color-scheme:dark){.rd-view{${T}}}
body[data-jp-theme-light="true"] .rd-view,body.vscode-light .rd-view{${S}}
body[data-jp-theme-light="false"] .rd-view,body.vscode-dark .rd-view{${T}}
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
`;function N(t,e="",o=""){let d=t.getRootNode()instanceof ShadowRoot?t.getRootNode():document.head;for(let[a,s]of[["rd-view",K],[`rd-view-${e}`,o]]){if(!s||d.querySelector(`style[data-rd="${a}"]`))continue;let i=document.createElement("style");i.dataset.rd=a,i.textContent=s,d.append(i)}}function r(t,e={},...o){let d=document.createElement(t);for(let[a,s]of Object.entries(e)){if(a.startsWith("on")||typeof s=="function")throw new TypeError(`no handlers by attribute: ${a}`);s===!1||s===null||s===void 0||d.setAttribute(a,s===!0?"":s)}return d.append(...o),d}function w(t,e,o){for(let d of e)t.on(`change:${d}`,o);return o(),()=>e.forEach(d=>t.off(`change:${d}`,o))}function A(t){let e=r("p",{class:"rd-problem",role:"alert"}),o=w(t,["problem"],()=>{e.textContent=e.title=t.get("problem")});return[e,o]}var b=t=>t.replaceAll(" %"," %"),m=t=>t.toLocaleString("en-GB"),v=(t,e,o=`${e}s`)=>`${m(t)} ${t===1?e:o}`;function k(t,e,o,d,a=""){let s=r("button",{type:"button",class:`rd-choice ${a}`,"aria-pressed":String(o),"aria-label":d},e);return s.dataset.key=t,s}function g(t,...e){let o=t.contains(document.activeElement)?document.activeElement.dataset.key:void 0,{scrollTop:d,scrollLeft:a}=t;t.replaceChildren(...e),t.scrollTop=d,t.scrollLeft=a,o!==void 0&&[...t.querySelectorAll("[data-key]")].find(s=>s.dataset.key===o)?.focus({preventScroll:!0})}var L=t=>t.length>1?t.map(e=>r("th",{scope:"col",class:"rd-name",title:e},e)):[r("th",{scope:"col"},"decisions")];function M(t,e,o){let d=t.map(({name:a,title:s,help:i,hue:n,counts:c,chosen:h})=>r("tr",{},r("th",{scope:"row",title:i},r("i",{class:`rd-dot rd-h-${n}`,"aria-hidden":"true"}),s),...c.map((f,l)=>r("td",{},k(`list:${l}:${a}`,m(f),h&&l===o,`${s}${e.length>1?`, ${e[l]}`:""}: ${v(f,"decision")}`,f?"":"rd-zero")))));return r("table",{class:"rd-lists"},r("caption",{class:"rd-hidden"},"Lists of decisions; a number shows its list"),r("thead",{},r("tr",{},r("th",{scope:"col"},"which decisions"),...L(e))),r("tbody",{},...d))}function j(t,e,o,d){let a=(n,c)=>t.chosen?.[0]===n&&t.chosen?.[1]===c,s=(n,{after:c,n:h,hue:f,strength:l})=>{let u=a(n,c);if(!h&&!u)return r("td",{class:"rd-zero","aria-label":"0"},"·");let p=k(`cell:${o}:${n}:${c}`,m(h),u,`${n} to ${c}${d?`, ${d}`:""}: ${v(h,"decision")}`,`rd-c rd-h-${f}`);return p.style.setProperty("--rd-p",`${l}%`),r("td",{},p)},i=e.map((n,c)=>t.rows.reduce((h,f)=>h+f.cells[c].n,0));return r("table",{class:"rd-heat"},r("caption",{class:d?"":"rd-hidden"},d||"Transitions: from what the base says, in rows, to what the candidate says"),r("thead",{},r("tr",{},r("th",{},r("span",{class:"rd-corner"},"from ↓ to →")),...e.map(n=>r("th",{scope:"col"},n)),r("th",{scope:"col"},"all"))),r("tbody",{},...t.rows.map(({state:n,cells:c,total:h})=>r("tr",{},r("th",{scope:"row"},n),...c.map(f=>s(n,f)),r("td",{class:"rd-sum"},m(h)))),r("tr",{},r("th",{scope:"row"},"all"),...i.map(n=>r("td",{class:n?"rd-sum":"rd-sum rd-zero"},m(n))),r("td",{class:"rd-sum"},m(t.total)))))}function O(){return r("p",{class:"rd-soft rd-keys"},...[["same","as before"],["tight","stricter"],["loose","looser"],["doubt","not decided"]].map(([e,o])=>r("span",{},r("i",{class:`rd-dot rd-h-${e}`,"aria-hidden":"true"}),o)))}function C(t,e,o){let d=Math.max(1,...t.rows.map(({counts:i})=>i[o])),a=t.rows.map(({place:i,title:n,counts:c,chosen:h})=>{let f=r("i",{class:"rd-bar","aria-hidden":"true"});return f.style.width=`${100*c[o]/d}%`,r("tr",{},r("th",{scope:"row",class:"rd-mono",title:n},r("span",{},n),f),...c.map((l,u)=>r("td",{},k(`key:${u}:${t.side}:${i}`,m(l),h&&u===o,`${t.side} ${n}${e.length>1?`, ${e[u]}`:""}: ${v(l,"decision")}`,l?"":"rd-zero"))))}),s=t.left?`${v(t.left,"more","more")}: search`:a.length?"":t.search?"no name has that":"none";return[r("table",{class:"rd-facet"},r("caption",{class:"rd-hidden"},`By ${t.side}; a number narrows to it`),e.length>1?r("thead",{},r("tr",{},r("th",{scope:"col"},t.side),...L(e))):"",r("tbody",{},...a)),r("p",{class:"rd-soft"},s)]}var W={more:"good",less:"bad"};function D(t,e,o){let d=y(t.low,t.high,e),a=y(t.lower,t.upper,e),s=r("span",{class:`rd-range rd-h-${o}`,role:"img","aria-label":`on this log ${t.seen}${t.future?`; in future traffic ${t.future}`:""}; the axis ends at ${$(e)}`});for(let[i,n]of[[a,"rd-future"],[d,"rd-seen"]]){if(!i)continue;let c=r("i",{class:n});c.style.left=`${i.left}%`,c.style.width=`${i.width}%`,s.append(c)}return s}function F(t,e,o){let d={exact:"exact",bounds:"between bounds"}[t.basis]??t.known,a=o?t.future||"–":"working it out…",s=[t.known,t.of===null?"":`of ${m(t.of)}`,t.method,t.clusters===null?"":v(t.clusters,"cluster")],i=r("div",{class:"rd-measure",title:s.filter(Boolean).join("; ")},r("span",{class:"rd-now"},r("b",{},b(t.seen)),r("small",{class:`rd-tag rd-h-${t.basis==="exact"?"same":"doubt"}`},d)));return i.append(t.share?D(t,e,W[t.better]??"tight"):r("span",{class:"rd-range rd-none","aria-hidden":"true"}),r("span",{class:"rd-soft rd-then"},b(a))),r("td",{},i)}function _(t,e){let o=t[0].measures.map(({name:a,text:s,share:i,better:n},c)=>{let h=t.map(p=>p.measures.find(x=>x.name===a)??null),f=z(h.flatMap(p=>p?[p.low,p.high,p.lower,p.upper]:[])),l={more:"more is better",less:"less is better"}[n]??"",u=c>0&&!i&&t[0].measures[c-1].share;return r("tr",{class:u?"rd-first":!1},r("th",{scope:"row",title:`${a}${l?`; ${l}`:""}`},s,l?r("small",{class:"rd-soft"},l):""),...h.map((p,x)=>p?F(p,f,t[x].estimated):r("td",{},"–")),r("td",{class:"rd-soft rd-axis"},i?$(f):""))}),d=e.length>1?e.map(a=>r("th",{scope:"col",class:"rd-name",title:a},a)):[r("th",{scope:"col"},"on this log, and in future traffic")];return r("table",{class:`rd-effects${e.length>1?" rd-several":""}`},r("caption",{class:"rd-hidden"},"Effects of the candidates"),r("thead",{},r("tr",{},r("th",{scope:"col"},"quantity"),...d,r("th",{scope:"col",class:"rd-axis"},"axis to"))),r("tbody",{},...o))}var q=`
.rd-compare{box-sizing:border-box;padding:12px 14px 8px;border:1px solid var(--rd-rule);border-radius:7px;width:100%;margin-bottom:6px}
.rd-compare p{margin:0 0 3px;overflow-wrap:anywhere}
.rd-compare h3{font-size:18px;font-weight:600;margin:0 0 6px;line-height:1.3;overflow-wrap:anywhere;color:inherit}
.rd-compare .rd-kicker{font-size:12px;color:var(--rd-soft);margin:0}
.rd-compare .rd-soft{color:var(--rd-soft);font-size:12.5px}
.rd-compare .rd-lede{font-size:15px;max-width:110ch;margin:2px 0 4px}
.rd-compare .rd-exact{min-height:38px}
.rd-compare .rd-cards{display:grid;grid-auto-flow:column;grid-auto-columns:minmax(260px,1fr);gap:14px;overflow-x:auto}
.rd-compare .rd-cards .rd-card{border-left:3px solid var(--rd-rule);padding-left:10px;height:176px;overflow-y:auto}
.rd-compare .rd-cards .rd-lede{font-size:13px}
.rd-compare .rd-gates{height:62px;overflow-y:auto}
.rd-compare .rd-line{display:flex;gap:8px;align-items:center;min-height:26px;margin:0 0 3px}
.rd-compare .rd-name{max-width:190px;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-compare .rd-badge{padding:1px 9px;border-radius:10px;color:var(--rd-hue);background:color-mix(in srgb,var(--rd-hue) 11%,transparent);font-weight:600}
.rd-compare .rd-badge::first-letter{text-transform:uppercase}
.rd-compare .rd-h-same{--rd-hue:var(--rd-soft)}.rd-compare .rd-h-plain{--rd-hue:var(--rd-soft)}
.rd-compare .rd-h-tight{--rd-hue:var(--rd-tight)}.rd-compare .rd-h-loose{--rd-hue:var(--rd-bad)}
.rd-compare .rd-h-doubt,.rd-compare .rd-h-note{--rd-hue:var(--rd-note)}
.rd-compare .rd-h-good{--rd-hue:var(--rd-good)}.rd-compare .rd-h-bad{--rd-hue:var(--rd-bad)}
.rd-compare .rd-dot{display:inline-block;width:9px;height:9px;border-radius:2px;background:var(--rd-hue);margin:0 7px 0 0;flex:none}
.rd-compare .rd-tabline{display:flex;align-items:center;gap:14px;border-bottom:1px solid var(--rd-rule);margin-top:8px}
.rd-compare .rd-tabs{display:flex;gap:2px;flex:none}
.rd-compare .rd-working{overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
.rd-compare .rd-tabs button{border:0;border-bottom:2px solid transparent;border-radius:0;padding:4px 12px;color:var(--rd-soft)}
.rd-compare .rd-tabs button[aria-selected="true"]{color:var(--rd-ink);border-bottom-color:var(--rd-tight);font-weight:600}
.rd-compare .rd-panel{height:306px;overflow:auto;padding:8px 0;overscroll-behavior:contain}
.rd-compare .rd-panel[hidden]{display:none}
.rd-compare .rd-cols{display:flex;gap:26px;align-items:flex-start}
.rd-compare .rd-cols>div{flex:none}
.rd-compare .rd-thirds>div{flex:1 1 0;min-width:240px}
.rd-compare table{border-collapse:collapse;background:none;border:0;margin:0;color:inherit;font-size:13px;table-layout:auto}
.rd-compare th,.rd-compare td{border:0;padding:1px 4px;text-align:right;font-weight:400;background:none;color:inherit;white-space:nowrap;max-width:none}
.rd-compare tbody tr:nth-child(n){background:none}
.rd-compare thead th{color:var(--rd-soft);font-size:12px;vertical-align:bottom}
.rd-compare th:first-child{text-align:left;padding-left:0}
.rd-compare caption{text-align:left;color:var(--rd-soft);caption-side:top;padding:0 0 2px}
.rd-compare .rd-choice{padding:0 8px;min-height:24px;min-width:44px;text-align:right;border-color:transparent;background:var(--rd-wash)}
.rd-compare .rd-choice:hover{border-color:var(--rd-faint)}
.rd-compare .rd-choice[aria-pressed="true"]{border-color:var(--rd-tight);box-shadow:inset 0 0 0 1px var(--rd-tight);font-weight:600}
.rd-compare .rd-zero{color:var(--rd-soft)}
.rd-compare .rd-lists td{padding:1px 0 1px 6px}.rd-compare .rd-lists .rd-choice{width:100%}
.rd-compare .rd-cols>.rd-matrices{display:flex;flex-wrap:wrap;gap:4px 30px;flex:1 1 0;min-width:0}
.rd-compare .rd-matrices:has(.rd-heat+.rd-heat) .rd-heat{border-spacing:2px}
.rd-compare .rd-matrices:has(.rd-heat+.rd-heat) .rd-heat :is(th,td,.rd-c){min-width:44px;padding-left:2px;padding-right:2px}
.rd-compare .rd-heat{border-collapse:separate;border-spacing:3px}
.rd-compare .rd-heat th,.rd-compare .rd-heat td{padding:0;text-align:center;min-width:54px}
.rd-compare .rd-heat th{color:var(--rd-soft);padding:2px 4px}
.rd-compare .rd-heat th:first-child{text-align:right;padding-right:7px}
.rd-compare .rd-corner{font-size:11px;color:var(--rd-soft)}
.rd-compare .rd-heat .rd-c{width:100%;min-width:54px;min-height:30px;text-align:center;padding:0 5px;background:color-mix(in srgb,var(--rd-hue) var(--rd-p),var(--rd-wash));--rd-hue:var(--rd-faint)}
.rd-compare .rd-heat .rd-h-tight{--rd-hue:var(--rd-tight)}.rd-compare .rd-heat .rd-h-loose{--rd-hue:var(--rd-bad)}.rd-compare .rd-heat .rd-h-doubt{--rd-hue:var(--rd-note)}
.rd-compare .rd-sum{color:var(--rd-soft)}
.rd-compare .rd-keys{display:flex;gap:16px;width:100%}
.rd-compare .rd-facet{width:100%}
.rd-compare .rd-facet td{width:70px;padding:1px 0 1px 4px}
.rd-compare .rd-facet th{position:relative;overflow:hidden;text-overflow:ellipsis;max-width:0;padding:0 4px 2px 0;line-height:24px}
.rd-compare .rd-facet th span{display:block;overflow:hidden;text-overflow:ellipsis}
.rd-compare .rd-facet .rd-bar{position:absolute;left:0;bottom:1px;height:2px;background:var(--rd-tight);opacity:.6}
.rd-compare .rd-facet .rd-choice{width:100%}
.rd-compare .rd-line input{flex:1;min-width:60px}
.rd-compare .rd-effects{width:100%}
.rd-compare .rd-effects th{vertical-align:top;white-space:normal;line-height:1.35;padding:5px 10px 5px 0}
.rd-compare .rd-effects th:first-child{width:300px}
.rd-compare .rd-effects th small{display:block}
.rd-compare .rd-effects td{vertical-align:top;padding:5px 0 5px 8px;text-align:left}
.rd-compare .rd-effects thead th{text-align:left;padding-left:8px}.rd-compare .rd-effects thead th:first-child{padding-left:0}
.rd-compare .rd-effects .rd-axis{text-align:right;width:52px;white-space:nowrap}
.rd-compare .rd-effects tbody tr{border-bottom:1px solid var(--rd-rule)}
.rd-compare .rd-effects .rd-first{border-top:2px solid var(--rd-faint)}
.rd-compare .rd-measure{display:grid;grid-template-columns:minmax(110px,150px) minmax(90px,1fr) 190px;gap:2px 12px;align-items:center}
.rd-compare .rd-several .rd-measure{grid-template-columns:1fr;min-width:150px}
.rd-compare .rd-several th:first-child{width:200px}
.rd-compare .rd-now{display:flex;flex-direction:column}
.rd-compare .rd-tag{color:var(--rd-hue);font-size:11.5px}
.rd-compare .rd-range{position:relative;height:14px;background:linear-gradient(var(--rd-rule),var(--rd-rule)) center/100% 1px no-repeat;display:block}
.rd-compare .rd-range i{position:absolute;border-radius:2px;min-width:3px;background:var(--rd-hue)}
.rd-compare .rd-range .rd-future{top:5px;height:4px;opacity:.45}
.rd-compare .rd-range .rd-seen{top:1px;height:12px}
.rd-compare .rd-range.rd-none{background:none}
.rd-compare .rd-shown{display:flex;gap:8px;align-items:center;height:38px;border-top:1px solid var(--rd-rule);margin-top:4px;white-space:nowrap;overflow-x:auto;overflow-y:hidden}
.rd-compare .rd-shown>*{flex:none}
.rd-compare .rd-chip{max-width:260px;overflow:hidden;text-overflow:ellipsis;border-radius:13px}
.rd-compare .rd-group{display:flex;gap:4px}
.rd-compare .rd-code{display:block;color:var(--rd-soft);overflow-x:auto;white-space:pre;height:28px;padding:2px 6px;background:var(--rd-code);border-radius:5px;font-size:12px}
`;var I="button,input,select,textarea,summary,a[href],[tabindex],[contenteditable]";function R(t){let e=()=>{for(let d of[t,...t.querySelectorAll(I)])d.setAttribute("data-lm-suppress-shortcuts","true")},o=new MutationObserver(e);return o.observe(t,{childList:!0,subtree:!0}),e(),()=>o.disconnect()}var B=[["what","What changes"],["where","By tool, policy, tenant"],["worth","Effects and intervals"]],H=200,E=class{constructor(e,o){this.model=e,this.me=Math.random().toString(36).slice(2,10),this.timers={},this.build(o);let[d,a]=A(e);this.root.append(d);let s=[a,R(this.root),w(e,["_head"],()=>this.heads()),w(e,["_counts"],()=>this.counts()),w(e,["_progress"],()=>{this.working.textContent=e.get("_progress")})];this.end=()=>{s.forEach(i=>i()),Object.values(this.timers).forEach(clearTimeout)}}get head(){return this.model.get("_head")}get names(){return this.head.candidates.map(({name:e})=>e)}build(e){this.top=r("div",{class:"rd-top"}),this.tabs=r("div",{class:"rd-tabs",role:"tablist","aria-label":"parts of the comparison"},...B.map(([o,d],a)=>this.tab(o,d,a))),this.working=r("span",{class:"rd-soft rd-working",role:"status"}),this.what=r("div",{class:"rd-cols"}),this.where=r("div",{class:"rd-cols rd-thirds"}),this.worth=r("div",{}),this.panels=[this.what,this.where,this.worth].map((o,d)=>this.panel(o,B[d][0],d)),this.bar=r("div",{class:"rd-shown"}),this.code=r("code",{class:"rd-mono rd-code",tabindex:"0","aria-label":"the filter in Python"}),this.facets={},this.root=r("section",{class:"rd-view rd-compare","aria-label":"comparison"},this.top,r("div",{class:"rd-tabline"},this.tabs,this.working),...this.panels,this.bar,this.code),e.append(this.root),this.root.addEventListener("click",o=>this.clicked(o.target.closest("[data-key]")?.dataset.key)),this.tabs.addEventListener("keydown",o=>this.pressed(o)),this.open(0)}tab(e,o,d){let a=r("button",{type:"button",role:"tab",id:`rd-${this.me}-t-${e}`,"aria-controls":`rd-${this.me}-p-${e}`},o);return a.addEventListener("click",()=>this.open(d)),a}panel(e,o,d){return r("div",{class:"rd-panel",role:"tabpanel",id:`rd-${this.me}-p-${o}`,"aria-labelledby":`rd-${this.me}-t-${o}`,tabindex:"0",hidden:d>0},e)}open(e){[...this.tabs.children].forEach((o,d)=>{o.setAttribute("aria-selected",String(d===e)),o.tabIndex=d===e?0:-1}),this.panels.forEach((o,d)=>{o.hidden=d!==e})}pressed(e){let o={ArrowRight:1,ArrowLeft:-1}[e.key];if(!o)return;let d=[...this.tabs.children],a=(d.indexOf(document.activeElement)+o+d.length)%d.length;this.open(a),d[a].focus(),e.preventDefault(),e.stopPropagation()}clicked(e){if(!e)return;let[o,...d]=e.split(":"),a={list:([s,i])=>({type:"showlist",candidate:Number(s),name:i}),cell:([s,i,n])=>({type:"showcell",candidate:Number(s),before:i,after:n}),key:([s,i,n])=>({type:"narrow",candidate:Number(s),side:i,place:Number(n)}),about:([s])=>({type:"about",candidate:Number(s)}),clear:()=>({type:"clear"})}[o];a&&this.model.send(a(d))}heads(){let{base:e,context:o,candidates:d,level:a}=this.head,s=d.length>1;g(this.top,r("p",{class:"rd-kicker"},`comparison${o?` · contexts ${o}`:""}`),r("h3",{},s?`${e} → ${d.length} candidates`:`${e} → ${d[0].name}`),r("div",{class:s?"rd-cards":""},...d.map(c=>this.card(c,s))));let i=`On this log: exact, or between the bounds that the log leaves (the thick bar). From, to: an estimate for future traffic of the same mix, ${Number((100*a).toPrecision(6))} % for each by itself (the thin one); per session, where it is no share.`,n=d.some(({measures:c})=>c.length)?_(d,this.names):r("p",{class:"rd-soft"},"working it out…");g(this.worth,r("p",{class:"rd-soft"},b(i)),n)}card({name:e,lines:o,gated:d,outcome:a,exact:s,history:i,problem:n},c){let h=a?r("span",{class:`rd-badge rd-h-${a.hue}`},a.verdict):r("span",{class:"rd-badge rd-h-same"},d?"working out the gates…":"no gates declared"),f=a?.lines??[],l=s||(i?"Working out which decisions are exact on this log…":"");return r("article",{class:"rd-card","aria-label":e},r("div",{class:"rd-line",role:"status"},c?r("b",{class:"rd-name",title:e},e):"",h),d?r("div",{class:"rd-gates rd-soft"},...f.map(u=>r("p",{},b(u)))):"",r("p",{class:"rd-lede"},b(o[0]??"")),...o.slice(1).map(u=>r("p",{class:"rd-soft"},b(u))),i?r("p",{class:"rd-soft rd-exact"},b(l)):"",n?r("p",{class:"rd-problem"},n):"")}counts(){let{lists:e,matrices:o,facets:d,shown:a,focus:s}=this.model.get("_counts"),i=this.names;g(this.what,r("div",{},M(e,i,s)),r("div",{class:"rd-matrices"},...o.map((n,c)=>j(n,this.head.states,c,i.length>1?i[c]:"")),O()));for(let n of d)g(this.facet(n).body,...C(n,i,s));this.says(a,s)}facet({side:e,known:o,search:d}){if(this.facets[e]){let{input:i}=this.facets[e];return i!==document.activeElement&&i.value!==d&&(i.value=d),this.facets[e]}let a=r("input",{type:"search",placeholder:`search ${m(o)}`,"aria-label":`search ${e} names`,maxlength:"1000"}),s=r("div",{class:"rd-keys-of"});return a.addEventListener("input",()=>{clearTimeout(this.timers[e]),this.timers[e]=setTimeout(()=>this.model.send({type:"search",side:e,text:a.value}),H)}),this.where.append(r("div",{},r("div",{class:"rd-line"},r("b",{},`By ${e}`),a),s)),this.facets[e]={input:a,body:s},this.facets[e]}says({n:e,of:o,title:d,help:a,keys:s,code:i},n){let c=s.map(({side:l,place:u,title:p})=>{let x=r("button",{type:"button",class:"rd-chip","aria-label":`no longer only ${l} ${p}`,title:p},`${l} ${p} ✕`);return x.dataset.key=`key:${n}:${l}:${u}`,x}),h=r("button",{type:"button",class:"rd-chip"},"clear");h.dataset.key="clear:";let f=this.names.length<2?[]:[r("span",{class:"rd-group",role:"group","aria-label":"candidate that the list is about"},...this.names.map((l,u)=>{let p=r("button",{type:"button",class:"rd-choice rd-name","aria-pressed":String(u===n),title:l},l);return p.dataset.key=`about:${u}`,p}))];g(this.bar,r("b",{title:a},d),...c,...f,r("span",{role:"status",class:"rd-soft"},`${m(e)} of ${m(o)} decisions`),h),this.code.textContent=`view.where  # ${i}`,this.code.title=i}},or={render({model:t,el:e}){N(e,"compare",q);let o=new E(t,e);return()=>o.end()}};export{or as default};
