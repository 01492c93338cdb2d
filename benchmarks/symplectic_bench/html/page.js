// Shows the data of a page, section by section.

const data = JSON.parse(document.getElementById("data").textContent);
const root = document.documentElement;
const charts = []; // functions that draw, once the library is there

// The theme: the system's, unless the button chooses the other one.

const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");
let chosenTheme = null;

function redraw() {
  if (window.Plotly) for (const draw of charts) draw();
}

function applyTheme() {
  const theme = chosenTheme ?? (systemIsDark.matches ? "dark" : "light");
  root.dataset.theme = theme;
  themeButton.textContent = theme === "dark" ? "Light theme" : "Dark theme";
  redraw();
}

themeButton.addEventListener("click", () => {
  chosenTheme = root.dataset.theme === "dark" ? "light" : "dark";
  applyTheme();
});
systemIsDark.addEventListener("change", applyTheme);

let [width, resized] = [root.clientWidth, null];
addEventListener("resize", () => {
  if (root.clientWidth === width) return; // only the height: a phone hides its address bar
  width = root.clientWidth;
  clearTimeout(resized);
  resized = setTimeout(redraw, 150);
});

function color(name) {
  return getComputedStyle(root).getPropertyValue(`--${name}`).trim();
}

// Other parts.

const TONES = {
  good: ["met", "holds", "ok", "first"],
  bad: ["not met", "fails", "error", "behind"],
  warn: ["holds when", "timeout", "oom", "diverged"],
};

function talliesPart(part) {
  const tone = (outcome) => Object.keys(TONES).find((key) => TONES[key].includes(outcome)) ?? "";
  const word = ([outcome, number]) =>
    element("span", { className: tone(outcome), textContent: `${outcome}: ${number}` });
  const line = ([what, outcomes]) => [
    element("dt", { textContent: what }),
    element("dd", {}, ...outcomes.map(word)),
  ];
  return element("dl", { className: "tallies" }, ...part.lines.flatMap(line));
}

function factsPart(part) {
  const line = ([key, value]) => [element("dt", { textContent: key }), element("dd", { textContent: value })];
  return element("dl", { className: "facts" }, ...part.lines.flatMap(line));
}

function linksPart(part) {
  const link = ([address, title, text]) =>
    element("li", {}, element("a", { href: address, textContent: title }), ` ${text}`);
  return element("ul", {}, ...part.links.map(link));
}

const PARTS = {
  table: tablePart,
  figure: figurePart,
  scatter: scatterPart,
  tallies: talliesPart,
  facts: factsPart,
  links: linksPart,
};

function show() {
  const main = document.getElementById("content");
  document.querySelector("h1").textContent = data.title;
  const sections = data.sections.map(({ id, title, parts }) =>
    element("section", { id }, element("h2", { textContent: title }), ...parts.map((part) => PARTS[part.kind](part))),
  );
  main.replaceChildren(...data.lead.map((text) => element("p", { textContent: text })), ...sections);
  const back = data.back ? [element("a", { href: data.back, textContent: "All suites" })] : [];
  const links = data.sections.map(({ id, title }) => element("a", { href: `#${id}`, textContent: title }));
  document.querySelector("nav").append(...back, ...links);
}

async function start() {
  applyTheme();
  show();
  try {
    if (charts.length) await loadLibrary();
    for (const draw of charts) await draw();
  } catch (why) {
    console.error(why);
    const words = "Charts need a browser of 2023 or later; the tables are complete.";
    document.querySelector("header").after(element("p", { className: "bad", textContent: words }));
  }
  root.dataset.ready = "true";
}

start();
