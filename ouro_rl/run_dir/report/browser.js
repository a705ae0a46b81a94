// The browser of samples. All text of the run goes into the page as text nodes, never as markup. What the reader chose
// is kept behind the # of the address, so that it survives a reload.
"use strict";
const data = JSON.parse(document.getElementById("rollouts").textContent);
const section = document.getElementById("browser");
const form = section.querySelector("form");
const list = document.getElementById("samples");
const found = document.getElementById("found");
const more = document.getElementById("more");
const tip = document.getElementById("tip");
const PER_PAGE = 12;
const NOTHING = "\u2013";

const samples = [];
data.groups.forEach((group, place) =>
  group.samples.forEach((sample, index) => samples.push({ ...sample, group, place, index })));

// A third of the samples is shallow, a third is deep, by loops per token.
const depths = samples.map(s => s.depth).filter(d => d !== null).sort((a, b) => a - b);
const shallow = depths[Math.floor((depths.length - 1) / 3)];
const deep = depths[Math.ceil((depths.length - 1) * 2 / 3)];

const KEEP = {
  verdict: { right: s => s.verdict === "right", wrong: s => s.verdict === "wrong",
    unscored: s => s.verdict === "unscored", cut: s => s.end === "length" },
  depth: { shallow: s => s.depth !== null && s.depth <= shallow, deep: s => s.depth !== null && s.depth >= deep },
};
const last = value => (value === null ? -Infinity : value);
const ORDER = {
  best: (a, b) => last(b.reward) - last(a.reward),
  worst: (a, b) => last(a.reward) - last(b.reward),
  deepest: (a, b) => last(b.depth) - last(a.depth),
  shallowest: (a, b) => last(a.depth) - last(b.depth),
  longest: (a, b) => b.tokens - a.tokens,
  surprising: (a, b) => Math.abs(last(b.advantage)) - Math.abs(last(a.advantage)),
};
let shown = PER_PAGE;
let open = null;  // the place of the group that is shown whole; null: the list

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(text, action) {
  const element = make("button", "", text);
  element.type = "button";
  element.addEventListener("click", action);
  return element;
}

function signed(value, digits) {
  return (value < 0 ? "\u2212" : value > 0 ? "+" : "") + Math.abs(value).toFixed(digits);
}

function plain(value) {
  return value === null ? "unscored" : String(+value.toPrecision(4)).replace("-", "\u2212");
}

const loops = count => (count === 0 ? "no depth" : count === 1 ? "1 loop" : count + " loops");

function facts(sample) {
  const line = make("p", "facts-line");
  line.append(make("span", "verdict " + sample.verdict, sample.verdict));
  line.append(make("span", "", "reward " + plain(sample.reward)));
  if (sample.advantage !== null) line.append(make("span", "", "advantage " + signed(sample.advantage, 2)));
  if (sample.depth !== null) line.append(make("span", "", sample.depth.toFixed(2) + " loops per token"));
  line.append(make("span", "", sample.tokens.toLocaleString("en") + (sample.tokens === 1 ? " token" : " tokens")));
  if (sample.end === "length") line.append(make("span", "bad", "cut off"));
  if (sample.end === "abort") line.append(make("span", "bad", "given up"));
  return line;
}

function scores(sample) {
  if (sample.scores.length < 2 && !sample.scores.some(score => score[3])) return [];
  return [make("p", "muted", sample.scores.map(([name, value, status, detail]) =>
    name + " " + plain(value) + (status ? " (" + status + (detail ? ": " + detail : "") + ")" : "")).join(" \u00b7 "))];
}

function completion(sample) {
  const box = make("pre", "completion");
  if (sample.text !== undefined) {
    box.textContent = sample.text;
    return box;
  }
  box.tabIndex = 0;
  box.setAttribute("role", "application");
  box.setAttribute("aria-label", "Completion; the left and right arrow keys go from token to token");
  sample.t.forEach((word, place) => {
    if (sample.out && sample.out[0] === place)
      box.append(make("span", "muted gap", " \u2026 " + sample.out[1].toLocaleString("en") + " tokens left out \u2026 "));
    // A line break is a token too, and its depth should show.
    const token = make("span", sample.k[place] ? "t d" + sample.k[place] : "t", data.words[word].replaceAll("\n", "\u21b5\n"));
    token.about = [sample, place];
    box.append(token);
  });
  return box;
}

function question(group) {
  const box = make("div", "question");
  if (group.question) box.append(make("pre", "prompt", group.question));
  if (group.gold !== null) {
    const gold = make("p", "gold", "Gold answer: ");
    gold.append(make("b", "", group.gold));
    box.append(gold);
  }
  return box;
}

function card(sample, inGroup) {
  const article = make("article", "card sample");
  article.append(facts(sample), ...scores(sample));
  if (!inGroup) article.append(question(sample.group));
  article.append(completion(sample));
  if (inGroup) return article;
  const foot = make("p", "foot muted", "Step " + sample.group.step.toLocaleString("en") + ", sample " +
    (sample.index + 1) + " of " + sample.group.of + " ");
  const opener = button("Whole group", () => show(sample.place));
  opener.dataset.group = sample.place;
  foot.append(opener);
  article.append(foot);
  return article;
}

function matching() {
  const choice = Object.fromEntries(new FormData(form));
  const lowest = choice.low === "" ? -Infinity : +choice.low, highest = choice.high === "" ? Infinity : +choice.high;
  const bounded = choice.low !== "" || choice.high !== "";
  const kept = samples.filter(sample =>
    (!choice.step || sample.group.step === +choice.step) &&
    (!choice.verdict || KEEP.verdict[choice.verdict](sample)) &&
    (!choice.depth || KEEP.depth[choice.depth](sample)) &&
    (!bounded || (sample.reward !== null && sample.reward >= lowest && sample.reward <= highest)));
  return choice.order ? kept.sort(ORDER[choice.order]) : kept;
}

function drawList() {
  const kept = matching();
  found.textContent = kept.length.toLocaleString("en") + " of " + samples.length.toLocaleString("en") + " samples";
  list.className = "grid";
  list.replaceChildren(...kept.slice(0, shown).map(sample => card(sample, false)));
  more.hidden = kept.length <= shown;
}

function drawGroup() {
  const group = data.groups[open];
  const mean = group.samples.map(s => s.reward).filter(r => r !== null);
  const head = make("div", "card group-head");
  const move = make("p", "foot");
  const back = button("Back to the list", () => show(null));
  const left = button("\u2190 Group before", () => show(open - 1));
  const right = button("Next group \u2192", () => show(open + 1));
  left.disabled = open === 0;
  right.disabled = open === data.groups.length - 1;
  move.append(back, left, right);
  const title = make("h3", "", "Step " + group.step.toLocaleString("en") + ": " + group.of + " samples of one prompt" +
    (mean.length ? ", mean reward " + plain(mean.reduce((a, b) => a + b, 0) / mean.length) : ""));
  title.tabIndex = -1;
  head.append(move, title, question(group));
  const cards = make("div", "side-by-side");
  cards.append(...group.samples.map(sample => card(sample, true)));
  list.className = "";
  list.replaceChildren(head, cards);
  found.textContent = group.of > group.samples.length ? "The first " + group.samples.length + " of " + group.of : "";
  more.hidden = true;
}

function draw() {
  hide();
  form.hidden = open !== null;
  if (open === null) drawList(); else drawGroup();
}

function show(place) {
  const from = open;
  open = place;
  draw();
  remember();
  const target = place === null ? list.querySelector('button[data-group="' + from + '"]') : list.querySelector("h3");
  if (target) target.focus({ preventScroll: true });
  section.scrollIntoView();
}

function remember() {
  const choice = new URLSearchParams([...new FormData(form)].filter(entry => entry[1] !== ""));
  if (open !== null) choice.set("group", open);
  history.replaceState(null, "", choice.size ? "#" + choice : location.pathname + location.search);
}

function recall() {
  const choice = new URLSearchParams(location.hash.slice(1));
  for (const field of form.elements) if (field.name && choice.has(field.name)) field.value = choice.get(field.name);
  const group = choice.get("group");
  open = group !== null && data.groups[+group] ? +group : null;
}

// -- what is known of one token, at the pointer, the tap or the arrow keys --

function describe(token) {
  const [sample, place] = token.about;
  const parts = [make("b", "", JSON.stringify(data.words[sample.t[place]])), make("span", "", loops(sample.k[place]))];
  if (sample.l && sample.l[place] !== null)
    parts.push(make("span", "", "log-prob " + signed(sample.l[place] / 1000, 3)));
  if (sample.e && sample.e[place] !== null) parts.push(exits(sample, place));
  return parts;
}

// How likely the gate was to leave after each loop that ran, and what is left for the loops that did not.
function exits(sample, place) {
  const depth = sample.k[place], own = sample.e[place], before = sample.p ? sample.p[place] : null;
  const rows = (before || []).map((share, index) => ["loop " + (index + 1), share]);
  rows.push(["loop " + depth, own]);
  if (depth < data.loops && (before || depth === 1))
    rows.push(["later", Math.max(0, 1000 - rows.reduce((sum, row) => sum + row[1], 0))]);
  const box = make("div", "exits");
  box.append(make("span", "caption", "The gate leaves after "));
  rows.forEach(([label, share]) => {
    const bar = make("span", "bar");
    bar.style.width = share / 10 + "%";
    const track = make("span", "track");
    track.append(bar);
    const here = label === "loop " + depth ? "here" : "";
    box.append(make("span", here, label + " "), track, make("span", here + " share", (share / 10).toFixed(1) + "\u00a0% "));
  });
  return box;
}

function point(token) {
  list.querySelector(".t.at")?.classList.remove("at");
  token.classList.add("at");
  tip.replaceChildren(...describe(token));
  tip.hidden = false;
  const box = token.getBoundingClientRect(), room = document.documentElement.clientHeight - box.bottom;
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  tip.style.left = Math.max(8, left) + scrollX + "px";
  const above = room < tip.offsetHeight + 14 && box.top > tip.offsetHeight + 14;
  tip.style.top = scrollY + (above ? box.top - tip.offsetHeight - 6 : box.bottom + 6) + "px";
}

function hide() {
  list.querySelector(".t.at")?.classList.remove("at");
  tip.hidden = true;
}

function step(box, way) {
  const tokens = [...box.querySelectorAll(".t")];
  const now = tokens.findIndex(token => token.classList.contains("at"));
  const next = now < 0 ? (way > 0 ? 0 : tokens.length - 1) : now + way;
  if (tokens[next]) point(tokens[next]);
}

list.addEventListener("mouseover", event => (event.target.about ? point(event.target) : hide()));
list.addEventListener("mouseleave", hide);
list.addEventListener("click", event => event.target.about && point(event.target));
list.addEventListener("keydown", event => {
  const way = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (way && event.target.matches("pre.completion")) {
    event.preventDefault();
    step(event.target, way);
  }
  if (event.key === "Escape") hide();
});
list.addEventListener("focusout", hide);
form.addEventListener("input", () => { shown = PER_PAGE; draw(); remember(); });
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("reset", () => setTimeout(() => { shown = PER_PAGE; draw(); remember(); }));
more.addEventListener("click", () => { shown += PER_PAGE; draw(); });
addEventListener("hashchange", () => { recall(); draw(); });
recall();
draw();
