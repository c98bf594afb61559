"""How the report's page looks."""

from __future__ import annotations

CSS = """
:root { --ink: #1f2328; --soft: #59636e; --line: #d8dee4; --truth: #111111; --model: #d55e00; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink);
       font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1320px; margin: 0 auto; padding: 36px 28px 56px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; letter-spacing: -0.015em; }
h2 { font-size: 1.3rem; margin: 0 0 14px; letter-spacing: -0.01em; }
.facts { color: var(--soft); margin: 6px 0 26px; }
.facts span + span::before { content: "·"; margin: 0 9px; color: #9aa4af; }
section { background: white; border: 1px solid var(--line); border-radius: 10px; padding: 22px 24px;
          margin-bottom: 20px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th { text-align: right; font-size: 0.8rem; font-weight: 600; color: var(--soft); padding: 0 5px 8px;
     white-space: nowrap; border-bottom: 2px solid var(--line); vertical-align: bottom; }
td { text-align: right; padding: 10px 5px; font-size: 0.95rem; white-space: nowrap;
     border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
td:first-child { font-weight: 600; }
small { display: block; color: var(--soft); font-size: 0.77rem; font-weight: 400; }
.note { color: var(--soft); font-size: 0.87rem; margin: 14px 0 0; max-width: 78em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 18px 22px; }
.plots img { width: 100%; height: auto; display: block; max-width: 560px; }
img.wide { width: 100%; max-width: 700px; height: auto; display: block; }
.top { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 1fr); gap: 22px; align-items: center;
       margin-bottom: 20px; }
.top .plots { grid-template-columns: 1fr; }
@media (max-width: 900px) { .top { grid-template-columns: 1fr; } }
section .facts { margin: -8px 0 16px; font-size: 0.87rem; }
figure { margin: 0; }
figure img { width: 100%; display: block; }
.names { display: grid; grid-template-columns: 1fr 1fr; column-gap: 2.4%; font-weight: 600; margin-bottom: 6px; }
.names span:last-child { color: var(--model); }
.scale { display: flex; align-items: center; gap: 10px; color: var(--soft); font-size: 0.85rem; margin-top: 8px; }
.scale i { flex: 0 0 180px; height: 10px; border-radius: 5px; }
@media print { body { background: white; } section { break-inside: avoid; } }
"""
