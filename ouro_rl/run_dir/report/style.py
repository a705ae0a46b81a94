"""Colors and stylesheet of the report. Charts, token spans and page share CSS variables, so that all follow the
reader's light or dark theme."""

from __future__ import annotations

# From a shade close to the page's to one far from it: deeper tokens stand out more in both themes. Lightness is
# monotone, so the order survives every kind of color blindness and black-and-white printing.
_LIGHT_ANCHORS = ("#e3f1cf", "#93d2b8", "#3a9bbd", "#23509c", "#131f57")
_DARK_ANCHORS = ("#25364f", "#2a6388", "#2f9e9f", "#9fd68c", "#f6f2b3")


def depth_palette(max_loops: int, *, dark: bool = False) -> list[tuple[str, str]]:
    """(background, text) hex colors of depths 1..max_loops; every pair has a contrast of at least 4.5 to 1."""
    anchors = [_rgb(anchor) for anchor in (_DARK_ANCHORS if dark else _LIGHT_ANCHORS)]
    pairs = []
    for depth in range(max_loops):
        place = depth / max(1, max_loops - 1) * (len(anchors) - 1)
        left = min(int(place), len(anchors) - 2)
        shade = [a + (b - a) * (place - left) for a, b in zip(anchors[left], anchors[left + 1], strict=True)]
        background = "#" + "".join(f"{round(channel):02x}" for channel in shade)
        pairs.append((background, max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))))
    return pairs


def contrast(one: str, other: str) -> float:
    """WCAG contrast ratio of two hex colors, from 1 to 21."""
    dark, light = sorted(_luminance(color) for color in (one, other))
    return (light + 0.05) / (dark + 0.05)


def stylesheet(max_loops: int) -> str:
    """The page's whole CSS, with one `--dK` (background) and `--dtK` (text) variable for each depth K."""
    tokens = "\n".join(f".d{k}{{background:var(--d{k});color:var(--dt{k})}}" for k in range(1, max_loops + 1))
    light = _LIGHT + _depth_variables(max_loops, dark=False)
    dark = _DARK + _depth_variables(max_loops, dark=True)
    return f":root{{{light}}}\n@media (prefers-color-scheme:dark){{:root{{{dark}}}}}\n{_RULES}\n{tokens}"


def _depth_variables(max_loops: int, *, dark: bool) -> str:
    palette = depth_palette(max_loops, dark=dark)
    return "".join(f"--d{k}:{back};--dt{k}:{text};" for k, (back, text) in enumerate(palette, start=1))


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def _luminance(color: str) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (v / 255 for v in _rgb(color))]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --c1..--c4 are Okabe and Ito's colors (safe for color-blind readers), darkened or lightened to suit the page.
_LIGHT = (
    "color-scheme:light;--page:#f7f7f5;--card:#ffffff;--ink:#1c2024;--muted:#5f676f;--line:#e2e3df;"
    "--good:#0a7a52;--bad:#b3401a;--c1:#0b62a8;--c2:#c25a00;--c3:#0a8a66;--c4:#a64d86;"
)
_DARK = (
    "color-scheme:dark;--page:#121518;--card:#1a1f24;--ink:#e6e9ec;--muted:#9aa4ad;--line:#2e353c;"
    "--good:#4cc79a;--bad:#f08a5d;--c1:#6db6f2;--c2:#f0a04b;--c3:#45c4a0;--c4:#dc93c2;"
)

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:40px 24px 64px}
h1{font-size:28px;line-height:1.2;letter-spacing:-.02em;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;letter-spacing:-.01em;margin:48px 0 6px}
h3{font-size:14px;font-weight:600;margin:0 0 12px}
p{margin:0 0 12px;max-width:75ch}
.eyebrow{color:var(--muted);font-size:13px;letter-spacing:.06em;text-transform:uppercase;margin:0 0 4px}
.muted,figcaption,th{color:var(--muted)}
.badge{display:inline-block;border:1px solid var(--line);border-radius:14px;padding:1px 10px;font-size:13px}
.grid{display:grid;gap:16px;grid-template-columns:repeat(2,minmax(0,1fr));margin-top:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:18px 20px;min-width:0}
.headline .move{font-size:34px;font-weight:650;letter-spacing:-.02em;line-height:1.25;font-variant-numeric:tabular-nums}
.headline .move .before,.headline .move .arrow{color:var(--muted);font-weight:400}
.headline .change{font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}
.facts{display:flex;flex-wrap:wrap;gap:1px;background:var(--line);
border:1px solid var(--line);border-radius:12px;overflow:hidden;margin:16px 0 0}
.facts div{flex:1 1 140px;background:var(--card);padding:12px 16px;
display:flex;flex-direction:column;justify-content:space-between}
.facts dt{color:var(--muted);font-size:13px}
.facts dd{margin:0;font-size:17px;font-weight:600;font-variant-numeric:tabular-nums}
figure{margin:0}
figure svg{display:block;width:100%;height:auto}
figure svg text{font-family:inherit!important}
figcaption{font-size:13px;line-height:1.45;margin-top:8px}
.legend{display:flex;flex-wrap:wrap;gap:6px;align-items:center;margin:4px 0 0;padding:0;list-style:none;font-size:13px}
.legend li{border-radius:4px;padding:1px 9px}
.sample p{font-size:13px;margin:0 0 6px}
.sample pre{font:13px/1.75 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0;
white-space:pre-wrap;overflow-wrap:anywhere}
.sample pre span{padding:2px 1px;margin-right:1px}
.sample{display:flex;flex-direction:column}
.sample .completion{flex:1}
.completion .t{border-radius:3px;cursor:default}
.completion .t.at{outline:2px solid var(--ink);outline-offset:-1px}
.question{border-left:3px solid var(--line);padding-left:10px;margin:0 0 10px}
.question pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;margin:0;white-space:pre-wrap;
overflow-wrap:anywhere;max-height:12em;overflow-y:auto}
.question .gold{font-size:13px;margin:4px 0 0;color:var(--muted);overflow-wrap:anywhere}.gold b{color:var(--ink)}
.facts-line{display:flex;flex-wrap:wrap;gap:2px 12px;color:var(--muted);font-variant-numeric:tabular-nums}
.verdict{font-weight:600}.verdict.right{color:var(--good)}.verdict.wrong{color:var(--bad)}
.foot{display:flex;flex-wrap:wrap;gap:8px;align-items:center;justify-content:space-between;margin:12px 0 0!important}
.group-head{margin-top:16px}.group-head .foot{justify-content:flex-start;margin:0 0 14px!important}
.side-by-side{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(240px,1fr));margin-top:16px}
.filters{display:flex;flex-wrap:wrap;gap:10px 18px;align-items:center;margin-top:14px;font-size:13px;color:var(--muted)}
.filters[hidden]{display:none}
button,select,input{font:inherit;font-size:13px;color:var(--ink);background:var(--page);border:1px solid var(--line);
border-radius:8px;padding:4px 10px}
input[type=number]{width:6em}
button{cursor:pointer}button:disabled{opacity:.45;cursor:default}
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
#tip{position:absolute;z-index:1;display:flex;flex-direction:column;max-width:280px;background:var(--ink);
color:var(--page);border-radius:8px;padding:6px 10px;font-size:13px;line-height:1.45;pointer-events:none}
#tip[hidden]{display:none}
.exits{display:grid;grid-template-columns:auto 90px auto;gap:0 10px;align-items:center;margin-top:4px;
font-variant-numeric:tabular-nums}
.exits .caption{grid-column:1/-1}.exits .share{text-align:right}.exits .here{font-weight:600}
.exits .track{height:7px;border-radius:4px;background:color-mix(in srgb,var(--page) 25%,transparent)}
.exits .bar{display:block;height:100%;border-radius:4px;background:var(--page)}
.findings{margin-top:16px}
.findings ul{list-style:none;margin:0;padding:0}
.findings li{display:grid;grid-template-columns:110px 1fr;gap:12px;padding:5px 0}
.findings b{font-weight:600;color:var(--muted)}
.findings .good{color:inherit}.findings .look b{color:var(--bad)}.findings .good b{color:var(--good)}
.state{margin-top:10px}.table{margin-top:16px}.grid .findings{margin-top:0}
.about{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:12px 0 0;font-size:13px}
.about dt{color:var(--muted)}.about dd{margin:0;overflow-wrap:anywhere}
pre.scroll{margin:0;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.note{margin:16px 0 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:7px 12px;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left;padding-left:0}
tr:last-child td{border-bottom:0}
details{margin-top:16px}
summary{cursor:pointer;font-weight:600}
details pre{font:13px/1.55 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-x:auto;margin:12px 0 0}
footer{margin-top:40px;font-size:13px;color:var(--muted)}
@media (max-width:720px){main{padding:24px 14px 40px}.grid{grid-template-columns:minmax(0,1fr)}.card{padding:14px}
h1{font-size:23px}.findings li{grid-template-columns:1fr;gap:0}.headline .move{font-size:27px}}
@media print{.card{break-inside:avoid}.filters,.foot,#tip{display:none}}
"""
