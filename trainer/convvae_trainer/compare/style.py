"""The report's style sheet: light, printable, no fonts from elsewhere."""

__all__ = ["STYLE"]

STYLE = """
:root { color-scheme: light; --ink: #1f2328; --pale: #6a737d; --line: #d8dee4; --wash: #f6f8fa; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 16px/1.55 Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, serif; }
main { max-width: 66rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1, h2, h3, nav, table, .verdict, small, figcaption, .note {
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.3rem; margin: 3rem 0 1rem; padding-top: 1.2rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
small { color: var(--pale); font-weight: 400; font-size: .8rem; }
.lead { font-size: 1.1rem; color: var(--pale); margin: 0 0 1rem; }
nav a { display: inline-block; margin: 0 1.1rem .3rem 0;
  font-size: .9rem; color: #0b57d0; text-decoration: none; }
nav a:hover { text-decoration: underline; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; }
figcaption, .note { font-size: .85rem; color: var(--pale); max-width: 50rem; margin-top: .6rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .9rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th:first-child { text-align: left; padding-left: 0; min-width: 13rem; }
thead th { border-bottom: 2px solid var(--ink); max-width: 13rem; overflow-wrap: anywhere; }
th { font-weight: 600; }
th small { display: block; font-size: .75rem; line-height: 1.35; }
tbody tr:hover { background: var(--wash); }
.best { font-weight: 700; }
td small { white-space: nowrap; }
.none { color: var(--pale); }
.claims { padding-left: 1.4rem; }
.claims > li { margin-bottom: 1.3rem; break-inside: avoid; }
.claims p { margin: 0 0 .25rem; }
.claim { font-size: 1.05rem; }
.claims ul { list-style: none; padding: 0; margin: .3rem 0 0; font-size: .9rem; }
.verdict { display: inline-block; font-size: .8rem; font-weight: 600; padding: .05rem .6rem;
  border-radius: 1rem; border: 1px solid; margin-right: .4rem; }
.yes { color: #1a7f37; background: #edf9f0; }
.no { color: #b3261e; background: #fdf0ef; }
.open { color: #8a5a00; background: #fff7e6; }
.verdict.none { color: var(--pale); background: var(--wash); }
.plain { padding-left: 1.2rem; }
.plain li { margin-bottom: .4rem; }
pre { background: var(--wash); padding: .8rem 1rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h3 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  .wide { overflow: visible; }
  .verdict { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
"""
