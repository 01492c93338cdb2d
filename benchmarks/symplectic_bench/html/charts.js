// Charts of panels, drawn with plotly. Its texts are markup, so every text from the data is escaped.

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", $: "&#36;" }; // between two $ would be a formula

function escapeMarkup(text) {
  return String(text).replace(/[&<>$]/g, (character) => ESCAPES[character]);
}

async function loadLibrary() {
  if (window.Plotly) return;
  const packed = atob(document.getElementById("library").textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  document.head.append(element("script", { textContent: await new Response(stream).text() }));
}

function digits(value) {
  return String(Number(value.toPrecision(4)));
}

function cellLines(cell) {
  const facts = data.facts.map((heading, i) => [heading, cell.facts[i]]).filter(([, text]) => text !== MISSING);
  return [cell.name, cell.group, ...facts.map(([heading, text]) => `${heading}: ${text}`)];
}

const WIDEST = 44; // characters of a line beside a point, which has to fit on a phone
const LONGEST = 3; // lines of one text there: plotly leaves out what is higher than the chart

function wrapped(text) {
  const lines = [""];
  for (const word of text.split(" ")) {
    const longer = lines.at(-1) ? `${lines.at(-1)} ${word}` : word;
    if (longer.length <= WIDEST || !lines.at(-1)) lines.splice(-1, 1, longer);
    else lines.push(word);
  }
  return lines.length > LONGEST ? [...lines.slice(0, LONGEST - 1), `${lines[LONGEST - 1]} …`] : lines;
}

function hoverText(series, place) {
  const cell = data.cells?.[series.cells[place]];
  const lines = cell ? cellLines(cell) : [series.name, `${series.labels?.[place] ?? ""} ${digits(series.y[place])}`];
  if (series.power) lines.push(`grows as x to the power ${series.power}`);
  return lines.flatMap(wrapped).map(escapeMarkup).join("<br>");
}

function trace(series, named) {
  const own = series.style[root.dataset.theme];
  return {
    type: "scatter",
    mode: series.joined ? "lines+markers" : "markers",
    name: escapeMarkup(series.name),
    legendgroup: series.name,
    showlegend: named,
    x: series.x,
    y: series.y,
    error_y: series.doubt?.length ? { array: series.doubt, color: own, thickness: 1 } : {},
    marker: { color: own, symbol: series.style.symbol, size: 11, line: { width: 2, color: own } },
    line: { color: own, dash: series.style.dashed ? "dash" : "solid", width: 2 },
    text: series.x.map((_, place) => hoverText(series, place)),
    hovertemplate: "%{text}<extra></extra>",
    customdata: series.cells,
  };
}

function frontTrace(front) {
  const [x, y] = [front.map((point) => point[0]), front.map((point) => point[1])];
  const line = { color: color("front"), width: 4 };
  return { type: "scatter", mode: "lines", x, y, line, opacity: 0.5, hoverinfo: "skip", showlegend: false };
}

function dialTrace(dial) {
  const line = { color: dial.style[root.dataset.theme], width: 1 };
  return { type: "scatter", mode: "lines", x: dial.x, y: dial.y, line, opacity: 0.6, hoverinfo: "skip", showlegend: false };
}

const SPARSE = 3; // ticks of a logarithmic axis that are too few

// Returns round values between two positive ones, evenly spaced.
function evenTicks(low, high) {
  const power = 10 ** Math.floor(Math.log10((high - low) / 4 || low));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((one) => (high - low) / one <= 5);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

// Returns the ticks of a logarithmic axis: decades; with few of them 1, 2 and 5 of each; in less than one, even ticks.
function logTicks(values, most) {
  const [low, high] = [Math.min(...values) / 1.2, Math.max(...values) * 1.2];
  const decades = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) decades.push(power);
  const fine = decades.flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
  const shown = fine.filter((value) => value >= low && value <= high);
  const every = Math.ceil(decades.length / most);
  const coarse = decades.filter((_, i) => i % every === 0).map((power) => 10 ** power);
  const tickvals = shown.length > most ? coarse : shown.length > SPARSE ? shown : evenTicks(low, high);
  const power = (value) => `10<sup>${Math.round(Math.log10(value))}</sup>`;
  const plain = tickvals.every((value) => value >= 1e-3 && value < 1e6);
  const small = (value) => digits(value / 10 ** Math.floor(Math.log10(value))) + `e${Math.floor(Math.log10(value))}`;
  return { tickvals, ticktext: tickvals.map(plain ? digits : tickvals === coarse ? power : small) };
}

function axisLayout(axis, values, most) {
  const range = [-0.6, axis.names.length - 0.4];
  const names = { range, tickvals: axis.names.map((_, i) => i), ticktext: axis.names.map(escapeMarkup) };
  const ticks = axis.names.length > 0 ? names : axis.log && values.length > 0 ? logTicks(values, most) : {};
  return {
    title: { text: escapeMarkup(axis.label), standoff: 10 },
    type: axis.log ? "log" : "linear",
    ...ticks,
    gridcolor: color("line"),
    zeroline: false,
    automargin: true,
  };
}

const NEAR = 10; // how far from the points a floor may be, as a factor, to be drawn

function floorShapes({ floor, shaded, series }) {
  const band = { type: "rect", y0: 0, y1: 1, yref: "paper", fillcolor: color("shade"), line: { width: 0 } };
  const bands = shaded.map(([x0, x1]) => ({ ...band, x0, x1 }));
  const heights = series.flatMap((one) => one.y);
  const isNear = floor && Math.min(...heights) < floor[0] * NEAR && floor[0] < Math.max(...heights) * NEAR;
  if (!isNear) return bands;
  const line = { color: color("muted"), width: 1, dash: "dot" };
  const label = { text: escapeMarkup(floor[1]), textposition: "end", font: { color: color("muted") } };
  return [...bands, { type: "line", x0: 0, x1: 1, xref: "paper", y0: floor[0], y1: floor[0], line, label }];
}

const CONFIGURATION = { displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
const PLOT_HEIGHT = 470;
const LEGEND_ENTRY = { width: 175, height: 24 }; // pixels, about

// Draws panels over one another, which share their axes. choose(place) is called with the cell of a chosen point.
function drawPanels(target, panels, choose) {
  const series = panels.flatMap((panel) => panel.series);
  const first = new Map(series.toReversed().map((one) => [one.name, one])); // in the legend, each name once
  const fronts = panels.filter((panel) => panel.front.length > 1).map((panel) => frontTrace(panel.front));
  fronts.push(...panels.flatMap((panel) => panel.dials.map(dialTrace)));
  const traces = series.map((one) => trace(one, first.get(one.name) === one)).reverse(); // the first on top
  const columns = Math.max(1, Math.floor((target.clientWidth - 80) / LEGEND_ENTRY.width));
  const height = PLOT_HEIGHT + LEGEND_ENTRY.height * Math.ceil(first.size / columns);
  target.style.height = `${height}px`;
  const font = { color: color("text"), family: "system-ui, sans-serif", size: 13 };
  const layout = {
    width: target.clientWidth,
    height,
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font,
    margin: { l: 60, r: 20, t: 20, b: 50 },
    hovermode: "closest",
    hoverlabel: { align: "left", bgcolor: color("surface"), bordercolor: color("line"), font },
    legend: { orientation: "h", yref: "container", y: 0, yanchor: "bottom", maxheight: 0.8, traceorder: "reversed" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: color("muted"), activecolor: color("text") },
    shapes: panels.flatMap(floorShapes),
    xaxis: axisLayout(panels[0].x, series.flatMap((one) => one.x), target.clientWidth > 600 ? 10 : 5),
    yaxis: axisLayout(panels[0].y, series.flatMap((one) => one.y), 10),
  };
  const drawn = window.Plotly.react(target, [...fronts, ...traces], layout, CONFIGURATION);
  target.removeAllListeners?.("plotly_click");
  target.on("plotly_click", ({ points: [point] }) => {
    if (point.customdata !== undefined) choose?.(point.customdata);
  });
  return drawn;
}

function chartElement(words) {
  return element("div", { className: "chart", role: "img", "aria-label": words });
}

function pointsTable(part, panel) {
  const place = (x) => panel.x.names[Math.round(x)] ?? digits(x);
  const lines = panel.series.flatMap((one) => one.x.map((x, i) => [one.name, place(x), digits(one.y[i])]));
  return sortableTable({ name: part.title, headings: ["series", panel.x.label || "x", panel.y.label], lines });
}

function figurePart(part) {
  const chart = chartElement(`${part.title}: its points are in the table below`);
  const points = element("div");
  const note = element("p", { className: "muted" });
  const panels = element("select", {}, ...part.panels.map((panel, i) => option(String(i), panel.title)));
  const shown = () => part.panels[Number(panels.value)];
  const words = () => [shown().headline, shown().note].filter(Boolean).join("; ");
  const redraw = () => drawPanels(chart, [shown()]);
  panels.addEventListener("change", () => {
    points.replaceChildren(pointsTable(part, shown()));
    note.textContent = words();
    redraw();
  });
  points.append(pointsTable(part, shown()));
  note.textContent = words();
  charts.push(redraw);
  const controls = part.panels.length > 1 ? [element("div", { className: "controls" }, labelled("Panel", panels))] : [];
  const parts = [caption(part.caption), ...controls, chart, note, folded("The points as a table", points)];
  return element("div", { "data-figure": part.title }, ...parts);
}
