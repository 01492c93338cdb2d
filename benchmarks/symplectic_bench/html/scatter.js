// Memory against time: choose groups, and pin two cells for their ratio.

const ALL = "";
const AXES = ["problem", "method", "dtype", "device"];

function ratioOf([one, other]) {
  const [first, second] = [one, other].toSorted((a, b) => a - b);
  const found = data.ratios[first]?.[second];
  const [below, above] = [data.cells[first], data.cells[second]];
  if (found) {
    const limits = { ")": "with its 95 % bootstrap interval", "]": "with the range of its rounds" }[found[0].at(-1)];
    const words = `${above.name} over ${below.name}: time ${found[0]}, tensors ${found[1]}`;
    const paired = `Time: the median of the ratios within a round, ${limits}.`;
    return [words, limits ? paired : "Time: the ratio of the medians; not timed in the same rounds."];
  }
  const excluded = [below, above].filter((cell) => !cell.comparable).map((cell) => cell.name);
  if (excluded.length) return ["No ratio", `Excluded from ratios, see the status: ${excluded.join(", ")}.`];
  if (below.group === above.group) return ["No ratio", "They were measured on different machines."];
  return ["No ratio", "The suite compares cells that differ only in contender or gradient."];
}

function pinsPanel(pins, unpin) {
  const cells = pins.map((place) => data.cells[place]);
  const heads = pins.map((place, i) => {
    const button = element("button", { type: "button", textContent: `Unpin ${cells[i].name}` });
    button.addEventListener("click", () => unpin(place));
    return element("th", { scope: "col" }, button);
  });
  const line = (what, texts) => {
    const found = texts.map((textContent) => element("td", { textContent }));
    return element("tr", {}, element("th", { scope: "row", textContent: what }), ...found);
  };
  const known = data.facts.map((what, i) => [what, cells.map((cell) => cell.facts[i])]);
  const facts = [["group", cells.map((cell) => cell.group)], ...known].map(([what, texts]) => line(what, texts));
  const body = element("tbody", {}, ...facts);
  const side = element("table", {}, element("thead", {}, element("tr", {}, element("td"), ...heads)), body);
  const shown = pins.length ? [element("div", { className: "table" }, side)] : [];
  const muted = (textContent) => element("p", { className: "muted", textContent });
  if (pins.length < 2) return [muted(`Pin ${pins.length ? "another cell" : "two cells"} for the ratio.`), ...shown];
  const [words, explained] = ratioOf(pins);
  return [element("p", { className: "ratio", textContent: words }), muted(explained), ...shown];
}

function scatterPart(part) {
  const chart = chartElement("Memory against time: its cells are in the table below");
  const [cells, notes] = [element("div"), element("p", { className: "muted" })];
  const counted = element("p", { role: "status", className: "muted" });
  const pinned = element("div", { className: "pins", "aria-live": "polite" });
  const values = (axis) => [...new Set(part.groups.map((group) => group[axis]))];
  const options = (axis) => [option(ALL, "all"), ...values(axis).map((value) => option(value))];
  const axes = AXES.map((axis) => element("select", { name: axis }, ...options(axis)));
  const groups = element("select", { name: "group" });
  let pins = [];

  const matches = (group) => axes.every((select, i) => select.value === ALL || group[AXES[i]] === select.value);
  const matching = () => part.groups.filter(matches);
  const chosen = () => (groups.value === ALL ? matching() : [part.groups[Number(groups.value)]]);

  function pin(place) {
    pins = pins.includes(place) ? pins.filter((other) => other !== place) : [...pins, place].slice(-2);
    pinned.replaceChildren(...pinsPanel(pins, pin));
  }
  const redraw = () => {
    const panels = chosen().map((group) => group.panel);
    if (panels.length) drawPanels(chart, panels, pin);
    else window.Plotly.purge(chart);
  };
  function refresh() {
    const shown = chosen().flatMap((group) => group.cells);
    const points = chosen().flatMap((group) => group.panel.series);
    counted.textContent = `${points.length} points of ${shown.length} cells`;
    notes.textContent = chosen().map((group) => group.panel.note).filter(Boolean).join("; ");
    const lines = shown.map((place) => [data.cells[place].name, data.cells[place].group, ...data.cells[place].facts]);
    const places = new Map(lines.map((line, i) => [line, shown[i]]));
    const act = (line) => {
      const button = element("button", { type: "button", textContent: "Pin", "aria-label": `Pin ${line[0]}` });
      button.addEventListener("click", () => pin(places.get(line)));
      return button;
    };
    cells.replaceChildren(sortableTable({ name: "cells", headings: ["gradient", "group", ...data.facts], lines }, act));
    if (window.Plotly) redraw();
  }
  function offerGroups() {
    const offered = matching().map((group) => option(String(part.groups.indexOf(group)), group.group));
    groups.replaceChildren(option(ALL, `all ${offered.length}`), ...offered);
  }
  for (const select of axes) {
    select.addEventListener("change", () => {
      offerGroups();
      refresh();
    });
  }
  groups.addEventListener("change", refresh);
  offerGroups();
  groups.value = "0";
  refresh();
  pinned.append(...pinsPanel(pins, pin));
  charts.push(redraw);
  const labels = [...axes.map((select, i) => labelled(AXES[i], select)), labelled("group", groups)];
  const controls = element("div", { className: "controls" }, ...labels);
  return element("div", {}, caption(part.caption), controls, counted, chart, notes, pinned, cells);
}
