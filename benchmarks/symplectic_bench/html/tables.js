// Elements, and tables that can be sorted, filtered and saved. Texts enter as text nodes, never as markup.

function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

function option(value, text = value) {
  return element("option", { value, textContent: text });
}

function labelled(label, control) {
  return element("label", {}, label, control);
}

function caption(text) {
  return element("p", { className: "caption", textContent: text });
}

function folded(summary, content) {
  return element("details", {}, element("summary", { textContent: summary }), content);
}

const MISSING = "-";

function csvField(text) {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

function isNumeric(lines, column) {
  const known = lines.map((line) => line[column]).filter((text) => text !== MISSING);
  return known.length > 0 && known.every((text) => /^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?( ?[([±].*)?$/.test(text));
}

function sorted(lines, column, direction, numeric) {
  const value = (line) => (numeric ? Number.parseFloat(line[column]) : line[column].toLowerCase());
  const missing = (line) => line[column] === MISSING;
  return lines.toSorted((a, b) => {
    if (missing(a) || missing(b)) return missing(a) - missing(b); // last in either direction
    const [x, y] = [value(a), value(b)];
    return direction * (x < y ? -1 : x > y ? 1 : 0);
  });
}

// Returns a table that can be sorted, filtered and saved. act(line), if it is given, returns a control for the line.
function sortableTable({ name, headings, groups = [], lines, csv }, act = null) {
  const body = element("tbody");
  const counted = element("span", { className: "muted", role: "status" });
  const filter = element("input", { type: "search", placeholder: "words to look for" });
  const numeric = headings.map((_, column) => isNumeric(lines, column));
  const kind = (i) => (numeric[i] ? "number" : "");
  let [column, direction, shown] = [null, 1, lines];

  function fill() {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = lines.filter((line) => words.every((word) => line.some((text) => text.toLowerCase().includes(word))));
    if (column !== null) shown = sorted(shown, column, direction, numeric[column]);
    body.replaceChildren(
      ...shown.map((line) => {
        const cells = line.map((text, i) => element("td", { className: kind(i), textContent: text }));
        return element("tr", {}, ...(act ? [element("td", {}, act(line))] : []), ...cells);
      }),
    );
    counted.textContent = `${shown.length} of ${lines.length} rows`;
  }

  const heads = headings.map((heading, i) => {
    const button = element("button", { type: "button", textContent: heading || "\u00a0" });
    const head = element("th", { scope: "col", className: kind(i) }, button);
    button.addEventListener("click", () => {
      direction = column === i ? -direction : 1;
      column = i;
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      fill();
    });
    return head;
  });
  const first = act ? [element("th", { scope: "col", textContent: "pin" })] : [];
  const spanning = groups.map(([text, span]) => element("th", { colSpan: span, textContent: text }));
  const above = groups.length ? [element("tr", {}, ...spanning)] : [];
  const head = element("thead", {}, ...above, element("tr", {}, ...first, ...heads));
  filter.addEventListener("input", fill);
  const save = (label, suffix, text) => {
    const button = element("button", { type: "button", textContent: label });
    button.addEventListener("click", () => download(`${name}${suffix}.csv`, text()));
    return button;
  };
  const asShown = () => [headings, ...shown].map((line) => `${line.map(csvField).join(",")}\n`).join("");
  const controls = element("div", { className: "controls" }, labelled("Filter", filter));
  controls.append(save("CSV of these rows", "-shown", asShown));
  if (csv) controls.append(save("CSV of all, in full precision", "", () => csv));
  controls.append(counted);
  fill();
  const scroller = element("div", { className: "table", tabIndex: 0, role: "region", "aria-label": name });
  scroller.append(element("table", {}, head, body));
  return element("div", {}, controls, scroller);
}

function tablePart(part) {
  const shown = [element("h3", { textContent: part.title }), caption(part.caption)];
  if (part.lines.length) shown.push(sortableTable(part));
  else shown.push(element("p", { textContent: "None." }));
  if (part.notes?.length) {
    const items = part.notes.map((note) => element("li", { textContent: note }));
    shown.push(folded(`Notes (${items.length})`, element("ul", {}, ...items)));
  }
  return element("div", { "data-table": part.name }, ...shown);
}
