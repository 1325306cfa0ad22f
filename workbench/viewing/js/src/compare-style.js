// How a comparison looks; colours are the theme's.
export const style = `
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
`;
