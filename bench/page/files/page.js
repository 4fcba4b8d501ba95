// Draws the plots and makes the tables sort and filter. The data are in the page, and nothing is fetched.
const held = JSON.parse(document.getElementById("page-data").textContent);
const root = document.documentElement;
const embed = window.vegaEmbed;
const TABLE_PAGE = 25;
const SEARCHED_FROM = 6;
const SVG_ROWS = 1500;

const THEMES = {
  light: {
    ink: "#17202a", soft: "#55606d", line: "#e3e7ec", paper: "#ffffff", accent: "#0b5fa5", other: "#8e99a6",
    target: "#a4570a", good: "#1a7340", bad: "#b3261e",
    category: ["#0b5fa5", "#d1690e", "#1b7f4d", "#a63a79", "#6d5bd0", "#8a6d00", "#0e8a99", "#b3261e", "#5d6b7a", "#3d8b00"],
    ramp: ["#eaf2fb", "#b9d4ee", "#7fb0dd", "#4487c2", "#1c5f9c", "#0a3a66"],
    diverging: ["#b3261e", "#e79c94", "#f3f4f6", "#8fbbe2", "#0b5fa5"],
  },
  dark: {
    ink: "#e8edf3", soft: "#a3afbd", line: "#2b3440", paper: "#12161c", accent: "#7db9f0", other: "#6d7986",
    target: "#f2a65a", good: "#6fce93", bad: "#ff9a8f",
    category: ["#7db9f0", "#f2a65a", "#6fce93", "#e79cc6", "#b3a6ff", "#e0c65a", "#66d0dc", "#ff9a8f", "#a9b6c4", "#a8dd6f"],
    ramp: ["#1c2a3a", "#234b74", "#2f6ea8", "#4f97d6", "#8fc3f2", "#d4e9ff"],
    diverging: ["#ff9a8f", "#8c4a45", "#242c37", "#2f6ea8", "#7db9f0"],
  },
};

function config(name, width) {
  const t = THEMES[name];
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: "transparent",
    font,
    padding: 2,
    view: { stroke: null },
    axis: {
      labelColor: t.soft, titleColor: t.soft, gridColor: t.line, domainColor: t.soft, tickColor: t.soft,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, labelLimit: Math.min(260, 0.36 * width), labelOverlap: true, titleLimit: 400,
    },
    axisBand: { grid: false, domain: false, ticks: false },
    legend: { labelColor: t.ink, titleColor: t.soft, labelFontSize: 12, titleFontSize: 12, labelLimit: Math.max(120, 0.8 * width), symbolStrokeWidth: 3 },
    header: { labelColor: t.ink, titleColor: t.soft, labelFontSize: 12 },
    title: { color: t.ink },
    text: { color: t.ink, fontSize: 12 },
    line: { strokeCap: "round", color: t.accent },
    point: { color: t.accent, filled: true },
    bar: { color: t.accent, cornerRadiusEnd: 3 },
    area: { color: t.accent },
    rule: { color: t.accent },
    rect: { color: t.accent },
    tick: { color: t.accent },
    range: { category: t.category, ramp: t.ramp, heatmap: t.ramp, diverging: t.diverging, ordinal: t.ramp },
    style: {
      "first": { color: t.accent },
      "other": { color: t.other },
      "target": { color: t.target, strokeDash: [6, 4], strokeWidth: 1.5 },
      "limit": { color: t.bad, strokeWidth: 1.5 },
      "suggestion": { color: t.good, strokeWidth: 2 },
      "band": { color: t.good, opacity: 0.16 },
      "faint": { color: t.other, opacity: 0.55 },
      "good": { color: t.good },
      "bad": { color: t.bad },
      "on-low": { color: t.ink },
      "on-high": { color: t.paper },
    },
  };
}

function rows(columns) {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, at) => Object.fromEntries(names.map((name) => [name, columns[name][at]])));
}

const views = new Map();

async function draw(plot, theme) {
  const place = document.getElementById(plot.id);
  const tables = Object.fromEntries(Object.entries(plot.data).map(([name, key]) => [name, rows(held.tables[key])]));
  const names = Object.keys(tables);
  const largest = Math.max(0, ...names.map((name) => tables[name].length));
  const spec = {
    $schema: held.schema,
    width: "container",
    height: plot.height,
    autosize: { type: "fit-x", contains: "padding" },
    ...(names.length === 1 ? { data: { name: names[0] } } : {}),
    datasets: tables,
    ...plot.spec,
  };
  views.get(plot.id)?.finalize();
  try {
    const made = await embed(place, spec, {
      ast: true,
      mode: "vega-lite",
      renderer: largest > SVG_ROWS ? "canvas" : "svg",
      actions: { export: true, source: false, compiled: false, editor: false },
      downloadFileName: plot.id,
      config: config(theme, place.clientWidth),
    });
    place.querySelectorAll("svg, canvas").forEach((each) => each.setAttribute("aria-hidden", "true"));
    place.dataset.drawn = theme;
    views.set(plot.id, made);
  } catch (error) {
    place.classList.add("failed");
    console.error(plot.id, error);
  }
}

// A drawing needs its place to have a width: one behind a closed line is drawn when that opens.
const drawn = new Set();
let theme = "light";
let queue = Promise.resolve();

function drawSoon(plot) {
  if (drawn.has(plot.id)) return;
  drawn.add(plot.id);
  queue = queue.then(() => draw(plot, theme)).then(() => new Promise((done) => setTimeout(done)));
}

function unfold() {
  document.querySelectorAll("details.fold").forEach((each) => (each.open = true));
}

function watch() {
  const plots = new Map(held.plots.map((plot) => [plot.id, plot]));
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawSoon(plots.get(entry.target.id))),
    { rootMargin: "600px" },
  );
  plots.forEach((_, id) => seen.observe(document.getElementById(id)));
  // Printing shows everything.
  window.addEventListener("beforeprint", () => {
    unfold();
    plots.forEach(drawSoon);
  });
  window.drawAll = async () => {
    unfold();
    plots.forEach(drawSoon);
    await queue;
  };
}

function show(name) {
  theme = name;
  root.dataset.theme = name;
  root.classList.toggle("dark", name === "dark");
  document.getElementById("theme").textContent = name === "dark" ? "Light" : "Dark";
  const again = [...drawn];
  drawn.clear();
  held.plots.filter((plot) => again.includes(plot.id)).forEach(drawSoon);
}

let asked = null;

function themes(chosen) {
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  asked = chosen ?? null;
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", () => {
    asked = theme === "dark" ? "light" : "dark";
    show(asked);
  });
  system.addEventListener("change", () => asked ?? show(system.matches ? "dark" : "light"));
  // Paper is white.
  window.addEventListener("beforeprint", () => show("light"));
  window.addEventListener("afterprint", () => show(asked ?? (system.matches ? "dark" : "light")));
  show(asked ?? (system.matches ? "dark" : "light"));
}

// A page of a run that goes on is loaded again and again: the reader stays where she was, in the theme that she chose.
// Some browsers have no storage for files, and then each load begins at the top.
const KEPT = `fusetune:${location.pathname}`;
const KEPT_MS = 60000;

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify({ top: window.scrollY, theme: asked, when: Date.now() }));
  } catch {}
}

function kept() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEPT));
    sessionStorage.removeItem(KEPT);
    return found && Date.now() - found.when < KEPT_MS ? found : {};
  } catch {
    return {};
  }
}

function stay({ top }) {
  if (document.querySelector("meta[http-equiv=refresh]")) window.addEventListener("pagehide", keep);
  if (top) window.scrollTo(0, top);
}

function fill(td, cell) {
  td.textContent = cell[0];
  if (cell[2]) {
    const small = document.createElement("small");
    small.textContent = cell[2];
    td.append(small);
  }
}

// A long table: rows are made when they are shown. Texts go in as text, and never as markup.
function longTable(more, columns) {
  return {
    data: more.cells,
    deferRender: true,
    columns: columns.map((column, at) => ({
      data: at,
      type: column.numeric ? "number-last" : "string",
      className: column.numeric ? "number" : "",
      render: (cell, kind) => (kind === "sort" ? (cell[1] ?? (column.numeric ? "" : cell[0])) : kind === "filter" ? cell[0] : ""),
      createdCell: (td, cell) => {
        fill(td, cell);
        if (cell[3]) td.classList.add(cell[3]);
      },
    })),
    createdRow: (line, _, number) => line.classList.toggle("strong", more.strong.includes(number)),
  };
}

// What has no number comes last, whichever way a column is sorted.
function numbers(DataTable) {
  const value = (text) => (text === "" || text === null ? NaN : Number(text));
  DataTable.ext.type.order["number-last-asc"] = (a, b) => last(value(a), value(b), 1);
  DataTable.ext.type.order["number-last-desc"] = (a, b) => last(value(a), value(b), -1);
  function last(a, b, sign) {
    if (Number.isNaN(a)) return Number.isNaN(b) ? 0 : 1;
    return Number.isNaN(b) ? -1 : sign * (a - b);
  }
}

function numericColumns(columns) {
  const targets = [...columns.keys()].filter((at) => columns[at].numeric);
  return targets.length ? [{ targets, type: "number-last" }] : [];
}

function tables() {
  const { DataTable } = window.fusetuneTables;
  numbers(DataTable);
  for (const element of document.querySelectorAll("table.data")) {
    const more = element.dataset.rows ? held.rows[element.dataset.rows] : null;
    const heads = [...element.tHead.rows[0].cells];
    const columns = heads.map((head) => ({ numeric: head.classList.contains("number") }));
    const count = more ? more.cells.length : element.tBodies[0].rows.length;
    if (count < 2) continue;
    if (more) element.tBodies[0].replaceChildren();
    new DataTable(element, {
      ...(more ? longTable(more, columns) : { columnDefs: numericColumns(columns) }),
      order: [],
      paging: count > TABLE_PAGE,
      pageLength: TABLE_PAGE,
      lengthMenu: [TABLE_PAGE, 100, { label: "All", value: -1 }],
      searching: count >= SEARCHED_FROM,
      info: count > TABLE_PAGE,
      autoWidth: false,
      orderMulti: true,
      layout: {
        topStart: null,
        topEnd: count >= SEARCHED_FROM ? { search: { placeholder: "Filter", text: "_INPUT_" } } : null,
        bottomStart: count > TABLE_PAGE ? ["pageLength", "info"] : null,
        bottomEnd: count > TABLE_PAGE ? "paging" : null,
      },
    });
    element.parentElement.querySelectorAll(".dt-search input").forEach((input) => input.setAttribute("aria-label", "Filter"));
  }
}

function copies() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = !navigator.clipboard;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(button.parentElement.querySelector("code").textContent);
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = "Copy"), 1500);
    });
  }
}

const before = kept();
themes(before.theme);
tables();
copies();
watch();
stay(before);
root.dataset.ready = "yes";
