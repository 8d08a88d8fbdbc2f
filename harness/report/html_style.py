# SPDX-License-Identifier: Apache-2.0
"""Provide the report's style sheet: light and dark, from a phone's width up, and for print."""

CSS = """
:root{--bg:#fff;--fg:#1b1f24;--dim:#57606a;--line:#d0d7de;--soft:#f6f8fa;--bad:#b3261e;--warn:#8a5a00;--ok:#1a7f37;
--link:#0757b5;--hit:#ffdcd7}
@media (prefers-color-scheme:dark){:root{--bg:#0d1117;--fg:#e6edf3;--dim:#9aa4af;--line:#30363d;--soft:#161b22;
--bad:#ff8a80;--warn:#e3b341;--ok:#56d364;--link:#79b8ff;--hit:#67201b}}
*{box-sizing:border-box}
html{scroll-padding-top:3.2rem;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif;
font-variant-ligatures:none}
main{max-width:72rem;margin:0 auto;padding:0 1rem 4rem}
header,section{margin:1.5rem 0}
h1{font-size:1.5rem;margin:0}h2{font-size:1.3rem;border-bottom:1px solid var(--line);padding-bottom:.2rem}
h3{font-size:1.05rem;margin:1.6rem 0 .4rem}
h4{font-size:1rem;margin:1.1rem 0 .3rem}h5{font-size:.9rem;margin:.6rem 0 .2rem}
h2,h3,p,li,summary{overflow-wrap:anywhere}td{overflow-wrap:break-word}
a{color:var(--link)}
a:focus-visible,summary:focus-visible,.wide:focus-visible,pre:focus-visible,th:focus-visible,select:focus-visible,
input:focus-visible{outline:3px solid var(--link)}
nav{position:sticky;top:0;z-index:1;background:var(--bg);border-bottom:1px solid var(--line);padding:.5rem 1rem;
white-space:nowrap;overflow-x:auto}
nav a{margin-right:1rem;padding:.3rem 0;display:inline-block}
.dim,caption,figcaption{color:var(--dim)}
code,pre,.reg td{font:13px/1.45 ui-monospace,"DejaVu Sans Mono",Menlo,Consolas,monospace}
pre{background:var(--soft);border:1px solid var(--line);padding:.6rem;overflow-x:auto;margin:.4rem 0}
.wide{overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;font-size:.92rem;min-width:100%}
caption{text-align:left;font-size:.85rem;padding-bottom:.2rem}
th,td{text-align:left;vertical-align:top;padding:.25rem .6rem .25rem 0;border-bottom:1px solid var(--line)}
th{color:var(--dim);font-weight:600;white-space:nowrap}
.reg td{white-space:nowrap}
.facts td:first-child,.num td:nth-child(-n+2){white-space:nowrap}.facts td:last-child{overflow-wrap:anywhere}
mark{background:var(--hit);color:inherit;font-weight:700}
.badge{font-weight:700;white-space:nowrap}
.kvm,.crash,.alarm,.internal,.never,.new{color:var(--bad)}.unexplained,.flaky,.model,.emulator{color:var(--warn)}.abstraction{color:var(--ok)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.6rem;padding:0;list-style:none}
.tiles li{background:var(--soft);border:1px solid var(--line);padding:.5rem .7rem}
.tiles b{display:block;font-size:1.35rem}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(17rem,1fr));gap:1rem}
figure{margin:0}svg{width:100%;height:auto;max-width:30rem}
svg text{font-size:11px;fill:var(--dim)}.axis{stroke:var(--line)}.line{fill:none;stroke:var(--link);stroke-width:2}
details{margin:.5rem 0}summary{cursor:pointer;padding:.2rem 0}
.finding{border-top:2px solid var(--line);padding-top:.4rem}
details>.finding{border-top:0;border-left:3px solid var(--line);padding:0 0 0 .9rem}
details>.finding>h3{margin-top:.4rem}
.command{white-space:pre-wrap;overflow-wrap:anywhere}
#search,#jump,#filter{font:inherit;width:100%;max-width:30rem;padding:.3rem .5rem;margin:.4rem 0;display:none;
background:var(--bg);color:var(--fg);border:1px solid var(--line)}
.script #search,.script #jump,.script #filter{display:block}
.clusters{list-style:none;padding:0}.clusters>li{border-top:1px solid var(--line);padding:.3rem 0}
.clusters>li>details,.clusters>li>p{margin:.1rem 0 .1rem 1rem}
small{font-size:.8rem;color:var(--dim)}
.strip{display:flex;align-items:center;gap:.4rem;flex-wrap:wrap}.strip svg{width:7.5rem;height:.63rem;flex:none}
@media (min-width:44.01rem){.strip small{white-space:nowrap}td .strip{flex-wrap:nowrap}td:has(.strip){width:1%}}
.strip rect{fill:var(--line)}.strip .shows{fill:var(--bad)}.strip .cannot{fill:var(--warn);opacity:.4}
.date{white-space:nowrap}.dot{fill:var(--link)}
.script .sort th{cursor:pointer}[hidden]{display:none!important}
@media (max-width:44rem){nav{font-size:.85rem;padding:.4rem .8rem}nav a{margin-right:.6rem}
.stack thead{display:none}.stack tr{display:block;border-bottom:1px solid var(--line);padding:.4rem 0}
.stack td{display:block;border:0;padding:.05rem 0;overflow-wrap:anywhere}.stack td:empty{display:none}
.stack td::before{content:attr(data-head) ": ";color:var(--dim);font-family:system-ui,sans-serif}}
@media print{nav,#search,#jump,#filter,#clusters,.appendix,#nights details{display:none!important}
html{font-size:62%}body{font-size:1rem}code,pre,.reg td{font-size:.9rem}main{max-width:none;padding:0}
a{color:inherit;text-decoration:none}article,tr,figure{break-inside:avoid}h2,h3{break-after:avoid}
.wide,pre{overflow:visible}pre{white-space:pre-wrap}.plots{grid-template-columns:repeat(2,1fr)}}
"""
