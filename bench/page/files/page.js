// Draws the plots and makes the tables sort and filter. The data are in the page, and nothing is fetched.
const held = JSON.parse(document.getElementById("page-data").textContent);
const root = document.documentElement;
const embed = window.vegaEmbed;
const TABLE_PAGE = 25;
const SEARCHED_FROM = 6;
const SVG_ROWS = 1500;
const SHORT = 16;

const THEMES = {
  light: {
    ink: "#17202a", soft: "#55606d", line: "#e3e7ec", paper: "#ffffff", accent: "#0b5fa5", other: "#7f8b99",
    target: "#a4570a", good: "#1a7340", bad: "#b3261e",
    category: ["#0b5fa5", "#d1690e", "#1b7f4d", "#a63a79", "#6d5bd0", "#8a6d00", "#0e8a99", "#b3261e", "#5d6b7a", "#3d8b00"],
    // Of the middle colour, black and white are equally far.
    ramp: ["#eaf2fb", "#b9d4ee", "#82b2df", "#3978b8", "#2766a3", "#164c80", "#0a3a66"], low: "#000000", high: "#ffffff",
    diverging: ["#b3261e", "#e79c94", "#f3f4f6", "#8fbbe2", "#0b5fa5"],
  },
  dark: {
    ink: "#e8edf3", soft: "#a3afbd", line: "#2b3440", paper: "#12161c", accent: "#7db9f0", other: "#6d7986",
    target: "#f2a65a", good: "#6fce93", bad: "#ff9a8f",
    category: ["#7db9f0", "#f2a65a", "#6fce93", "#e79cc6", "#b3a6ff", "#e0c65a", "#66d0dc", "#ff9a8f", "#a9b6c4", "#a8dd6f"],
    ramp: ["#1a2a3b", "#214367", "#2a5f96", "#3978b8", "#6aa6dd", "#a3cdf3", "#d9ebff"], low: "#ffffff", high: "#000000",
    diverging: ["#ff9a8f", "#8c4a45", "#242c37", "#2f6ea8", "#7db9f0"],
  },
};

// How much of a plot the names of its rows may take.
function shareOfNames(width) {
  return width < 500 ? 0.5 : 0.36;
}

function config(name, width, columns) {
  const t = THEMES[name];
  const font = getComputedStyle(document.body).fontFamily;
  return {
    background: t.paper,
    font,
    padding: { left: 2, right: 8, top: 4, bottom: 2 },
    view: { stroke: null },
    axis: {
      labelColor: t.soft, titleColor: t.soft, gridColor: t.line, domainColor: t.soft, tickColor: t.soft,
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, labelLimit: Math.min(260, shareOfNames(width) * width), labelOverlap: true,
      labelPadding: 5, labelSeparation: 6, titlePadding: 8, titleLimit: 400, tickSize: 4, domainOpacity: 0.5, tickOpacity: 0.5,
    },
    axisY: { domain: false, ticks: false },
    axisBand: { grid: false, domain: false, ticks: false },
    legend: {
      labelColor: t.ink, titleColor: t.soft, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500, rowPadding: 4, columnPadding: 16,
      labelLimit: Math.max(120, 0.8 * width), symbolStrokeWidth: 3, gradientThickness: 12, columns,
    },
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
      "on-low": { color: t.low },
      "on-high": { color: t.high },
    },
  };
}

function rows(columns) {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, at) => Object.fromEntries(names.map((name) => [name, columns[name][at]])));
}

// What a specification cannot say of itself, because it does not know its width: few ticks, decades that stand out,
// names that lie flat where they have room, and legends as wide as the plot.
function fitted(width, texts, whole) {
  return (vega) => {
    const log = new Set((vega.scales ?? []).filter((scale) => ["log", "symlog"].includes(scale.type)).map((scale) => scale.name));
    const named = new Set((vega.scales ?? []).filter((scale) => ["band", "point"].includes(scale.type)).map((scale) => scale.name));
    each(vega, "axes", (axis) => {
      const lies = axis.orient !== "left" && axis.orient !== "right";
      const size = /^(ceil)\((.*)\/40\)$/.exec(axis.tickCount?.signal ?? "");
      if (size && whole.has(axis.scale)) axis.tickMinStep = 1;
      if (size) axis.tickCount = { signal: `clamp(ceil(${size[2]}/${lies ? 64 : 48}), 2, 12)` };
      if (log.has(axis.scale) && axis.grid) {
        const decade = "abs(log(datum.value)/LN10 - round(log(datum.value)/LN10)) < 1e-6";
        axis.encode = { ...axis.encode, grid: { update: { opacity: [{ test: decade, value: 1 }, { value: 0.35 }] } } };
      }
      if (named.has(axis.scale) && lies && (axis.labelAngle ?? 270) === 270) {
        const longest = Math.max(1, ...texts.map((text) => text.length));
        const room = (0.85 * width) / Math.max(1, texts.length);
        if (7 * longest < room) Object.assign(axis, { labelAngle: 0, labelAlign: "center", labelBaseline: "top" });
        else Object.assign(axis, { labelAngle: -40, labelAlign: "right", labelBaseline: "middle", labelOverlap: false });
      }
    });
    each(vega, "legends", (legend) => {
      // A legend of lines and their bands has the lines' colours, not the bands' paler ones.
      const opacity = legend.encode?.symbols?.update?.opacity;
      if (opacity) (Array.isArray(opacity) ? opacity[0] : opacity).value = 1;
    });
    return vega;
  };
}

function each(vega, key, change) {
  (vega[key] ?? []).forEach(change);
  (vega.marks ?? []).forEach((inner) => each(inner, key, change));
}

// What a channel shows over all layers, by the types that are asked for.
function valuesOf(spec, channel, tables, types) {
  const layers = [...(spec.layer ?? spec.spec?.layer ?? [spec.spec ?? spec]), spec];
  const found = layers.map((layer) => layer.encoding?.[channel]).find((each) => types.includes(each?.type) && each.field);
  if (!found) return [];
  const values = new Set(Object.values(tables).flatMap((table) => table.map((row) => row[found.field])));
  return [...values].filter((value) => value !== undefined && value !== null);
}

function textsOf(spec, channel, tables) {
  return valuesOf(spec, channel, tables, ["nominal", "ordinal"]).map(String);
}

// The axes whose values are all whole, such as epochs: between two of them there is nothing to mark.
function wholeAxes(spec, tables) {
  const are = (values) => values.length > 0 && values.every(Number.isInteger);
  return new Set(["x", "y"].filter((axis) => are(valuesOf(spec, axis, tables, ["quantitative"]))));
}

// How many entries of a legend stand beside each other. It begins where the axis does, at the right of a plot's names.
function columnsOf(texts, width) {
  const longest = Math.max(4, ...texts.map((text) => text.length));
  return Math.max(1, Math.min(texts.length || 1, Math.floor(width / (6.5 * longest + 48))));
}

const views = new Map();

async function draw(plot, theme) {
  const place = document.getElementById(plot.id);
  const tables = Object.fromEntries(Object.entries(plot.data).map(([name, key]) => [name, rows(held.tables[key])]));
  const names = Object.keys(tables);
  const width = place.clientWidth;
  const right = textsOf(plot.spec, "y", tables).length ? (1 - shareOfNames(width)) * width : width - 50;
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
      i18n: { CLICK_TO_VIEW_ACTIONS: "Save this plot" },
      downloadFileName: plot.id,
      defaultStyle: false,
      forceActionsMenu: true,
      tooltip: { disableDefaultStyle: true },
      config: config(theme, width, columnsOf(textsOf(plot.spec, "color", tables), right)),
      patch: fitted(width, textsOf(plot.spec, "x", tables), wholeAxes(plot.spec, tables)),
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
  queue = queue.then(() => draw(plot, theme)).then(pause);
}

// Lets a reader scroll and type between two drawings.
function pause() {
  return new Promise((done) => setTimeout(done));
}

// What nobody looks at is drawn when the browser has time, so that a print or a jump finds it.
function drawLater(plots) {
  const wait = window.requestIdleCallback ?? ((call) => setTimeout(call, 200));
  const next = () => {
    const plot = plots.find((each) => !drawn.has(each.id));
    if (!plot) return;
    drawSoon(plot);
    queue.then(() => wait(next));
  };
  queue.then(() => wait(next));
}

function unfold() {
  folds().forEach((each) => (each.open = true));
}

function watch() {
  const plots = new Map(held.plots.map((plot) => [plot.id, plot]));
  const seen = new IntersectionObserver(
    (entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => drawSoon(plots.get(entry.target.id))),
    { rootMargin: "600px" },
  );
  plots.forEach((_, id) => seen.observe(document.getElementById(id)));
  const all = async () => {
    unfold();
    plots.forEach(drawSoon);
    await queue;
  };
  // Printing shows everything.
  window.addEventListener("beforeprint", all);
  window.drawAll = all;
  window.addEventListener("load", () => setTimeout(() => drawLater([...plots.values()]), 500));
}

// The browser's own command prints what is drawn when it is given. This one waits for the drawings.
function prints() {
  const button = document.getElementById("print");
  button.hidden = false;
  button.addEventListener("click", async () => {
    const before = theme;
    if (before !== "light") show("light");
    await window.drawAll();
    window.print();
    if (before !== "light") show(before);
  });
}

// The bar says which section is in view.
function follows() {
  const bar = document.querySelector(".bar nav");
  const links = new Map([...bar.querySelectorAll("a")].map((link) => [link.hash.slice(1), link]));
  const inView = new Set();
  const mark = () => {
    const now = [...links.keys()].find((id) => inView.has(id));
    if (!now || links.get(now).hasAttribute("aria-current")) return;
    links.forEach((link) => link.removeAttribute("aria-current"));
    const link = links.get(now);
    link.setAttribute("aria-current", "location");
    bar.scrollTo({ left: link.offsetLeft - bar.offsetLeft - 40 });
  };
  const seen = new IntersectionObserver(
    (entries) => {
      entries.forEach((entry) => (entry.isIntersecting ? inView.add(entry.target.id) : inView.delete(entry.target.id)));
      mark();
    },
    { rootMargin: "-64px 0px -55% 0px" },
  );
  links.forEach((_, id) => seen.observe(document.getElementById(id)));
}

function show(name) {
  theme = name;
  root.dataset.theme = name;
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
  let before = null;
  window.addEventListener("beforeprint", () => {
    before ??= theme;
    if (theme !== "light") show("light");
  });
  window.addEventListener("afterprint", () => {
    if (before !== theme) show(before);
    before = null;
  });
  show(asked ?? (system.matches ? "dark" : "light"));
}

// A page of a run that goes on is loaded again and again: the reader stays where she was, in the theme that she chose.
// Some browsers have no storage for files, and then each load begins at the top.
const KEPT = `fusetune:${location.pathname}`;
const KEPT_MS = 60000;

// The first thing in view, or else the last above it, and how far it is from the window's edge.
function landmark() {
  const seen = [...document.querySelectorAll("main [id]")].filter((each) => each.checkVisibility?.() ?? true);
  const named = seen.map((each) => ({ id: each.id, top: each.getBoundingClientRect().top }));
  return named.find(({ top }) => top >= 0 && top < window.innerHeight) ?? named.filter(({ top }) => top < 0).pop();
}

// A plot that is not drawn yet has the height that it had, so that nothing moves when it is drawn.
function heights() {
  const places = [...document.querySelectorAll(".drawing[data-drawn]")].filter((each) => each.clientHeight);
  return { width: window.innerWidth, all: places.map((each) => [each.id, each.getBoundingClientRect().height]) };
}

function folds() {
  return [...document.querySelectorAll("details.fold")];
}

function titleOf(fold) {
  return `${fold.closest("[id]").id} ${fold.querySelector("summary").textContent}`;
}

function keep() {
  const now = {
    theme: asked,
    when: Date.now(),
    landmark: window.scrollY ? landmark() : null,
    heights: heights(),
    open: folds().filter((each) => each.open).map(titleOf),
  };
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(now));
    history.scrollRestoration = "manual"; // or else the browser scrolls too
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

function stay({ landmark, heights, open }) {
  if (document.querySelector("meta[http-equiv=refresh]")) window.addEventListener("pagehide", keep);
  window.addEventListener("load", () => setTimeout(() => (history.scrollRestoration = "auto")));
  folds().filter((each) => open?.includes(titleOf(each))).forEach((each) => (each.open = true));
  if (heights?.width === window.innerWidth) {
    heights.all.forEach(([id, height]) => {
      const place = document.getElementById(id);
      if (place) place.style.minHeight = `${height}px`;
    });
  }
  const found = landmark && document.getElementById(landmark.id);
  if (!found) return;
  window.scrollBy({ top: found.getBoundingClientRect().top - landmark.top, behavior: "instant" });
}

// A text may break after the signs that join long names.
function write(place, text) {
  const pieces = text.split(/(?<=[\p{L}_][,/:])(?=[\p{L}\p{N}_]{3})|(?<=[,/:])(?=[\p{L}_][\p{L}\p{N}_]{2})/u);
  place.replaceChildren(...pieces.flatMap((piece, at) => (at ? [document.createElement("wbr"), piece] : [piece])));
}

function fill(td, cell) {
  write(td, cell[0]);
  if (cell[2]) {
    const small = document.createElement("small");
    write(small, cell[2]);
    td.append(small);
  }
}

// A long table: rows are made when they are shown. Texts go in as text, and never as markup.
function longTable(more, columns, sentences) {
  return {
    data: more.cells,
    deferRender: true,
    columns: columns.map((column, at) => ({
      data: at,
      type: column.numeric ? "number-last" : "string",
      className: column.name,
      render: (cell, kind) => (kind === "sort" ? (cell[1] ?? (column.numeric ? "" : cell[0])) : kind === "filter" ? `${cell[0]} ${cell[2]}` : ""),
      createdCell: (td, cell) => {
        fill(td, cell);
        if (cell[3]) td.classList.add(cell[3]);
        if (sentences) td.dataset.title = column.title;
        if (!column.numeric && Math.max(cell[0].length, cell[2].length) <= SHORT) td.classList.add("short");
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
    const columns = heads.map((head) => ({ numeric: head.classList.contains("number"), name: head.className, title: head.textContent }));
    const count = more ? more.cells.length : element.tBodies[0].rows.length;
    if (count < 2) continue;
    if (more) element.tBodies[0].replaceChildren();
    new DataTable(element, {
      ...(more ? longTable(more, columns, element.classList.contains("sentences")) : { columnDefs: numericColumns(columns) }),
      order: [],
      paging: count > TABLE_PAGE,
      pageLength: TABLE_PAGE,
      lengthMenu: [TABLE_PAGE, 100, { label: "All", value: -1 }],
      searching: count >= SEARCHED_FROM,
      info: count > TABLE_PAGE,
      autoWidth: false,
      language: { lengthMenu: "_MENU_ rows", info: "_START_ to _END_ of _TOTAL_", infoFiltered: "(of _MAX_)", infoEmpty: "none", zeroRecords: "No row has this text." },
      orderMulti: true,
      layout: {
        topStart: count >= SEARCHED_FROM ? { search: { placeholder: "Filter", text: "_INPUT_" } } : null,
        topEnd: null,
        bottomStart: count > TABLE_PAGE ? ["pageLength", "info"] : null,
        bottomEnd: count > TABLE_PAGE ? "paging" : null,
      },
    });
    const filter = element.closest(".dt-container").querySelector(".dt-search input");
    if (filter) {
      filter.setAttribute("aria-label", `Filter: ${element.closest("figure").querySelector("figcaption").textContent}`);
      filter.parentElement.querySelector("label")?.remove();
    }
  }
}

// A table that fits needs no stop for the keyboard. One that goes on at the right shows it.
function scrolls() {
  for (const place of document.querySelectorAll(".scroll")) {
    if (place.scrollWidth > place.clientWidth) place.tabIndex = 0;
    else place.removeAttribute("tabindex");
    const more = () => place.classList.toggle("more", place.scrollLeft + place.clientWidth < place.scrollWidth - 2);
    place.onscroll = more;
    more();
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

const earlier = kept();
themes(earlier.theme);
tables();
copies();
scrolls();
window.addEventListener("resize", scrolls);
watch();
prints();
follows();
stay(earlier);
root.dataset.ready = "yes";
