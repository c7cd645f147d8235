"use strict";
// The page: loads data when a view needs it, builds elements from text alone, and formats numbers.
const site = (() => {
  const root = document.documentElement;
  const base = root.dataset.base;
  const data = new Map();
  const scripts = new Map();
  const views = new Map();

  // Data: each file is a script that calls `put`, because a page opened from the disk cannot read other files.
  const put = (name, json) => data.set(name, JSON.parse(json));
  const script = (path) => {
    if (!scripts.has(path)) {
      scripts.set(path, new Promise((resolve, reject) => {
        const element = document.createElement("script");
        element.src = `${base}/${path}`;
        element.onload = () => resolve();
        element.onerror = () => reject(new Error(`${path} is missing. Write the site again.`));
        document.head.append(element);
      }));
    }
    return scripts.get(path);
  };
  const need = async (name) => {
    if (!data.has(name)) await script(`data/${name}.js`);
    return data.get(name);
  };
  const optional = (name) => need(name).catch(() => ({}));
  const file = (kind, run) => `${kind}/${run.slice(0, Number(root.dataset.letters)) || "all"}`;
  const objects = ({ columns, rows }) =>
    rows.map((row) => Object.fromEntries(columns.map((column, i) => [column, row[i]])));
  let boardMade = null;
  const board = async () => {
    const found = await need("leaderboard");
    boardMade ??= { tables: found.tables, rows: objects(found) };
    return boardMade;
  };

  // Elements: children are nodes or text, never markup.
  const h = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value != null) element.setAttribute(name, value);
    }
    return add(element, ...children);
  };
  const add = (element, ...children) => {
    element.append(...children.flat(9).filter((child) => child != null && child !== false));
    return element;
  };
  const short = (cell) => (typeof cell === "string" && cell.length < 30 ? "short" : null);
  const linked = (text) => {
    const parts = String(text).split(/(https:\/\/[\w.-]+(?:\/[\w./-]*[\w/-])?)/);
    return parts.map((part, i) => (i % 2 ? h("a", { href: part, rel: "noreferrer" }, part) : part));
  };
  const simple = (label, columns, rows) =>
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
      h("table", { class: "plain" },
        h("thead", {}, h("tr", {}, columns.map((column) => h("th", { scope: "col", class: short(column) }, column)))),
        h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, i) =>
          h(i ? "td" : "th", i ? { class: short(cell) } : { scope: "row" }, cell)))))));
  const select = (label, options, value, change) => {
    const box = h("select", { onchange: () => change(box.value) },
      options.map(([key, words]) => h("option", { value: key, selected: String(key) === String(value) }, words)));
    return field(label, box);
  };
  let fields = 0;
  const field = (label, box) => {
    box.id = `field-${++fields}`;
    return h("div", { class: "field" }, h("label", { for: box.id }, label), box);
  };
  const search = (value, change) => {
    const box = h("input", { type: "search", value, oninput: () => change(box.value.toLowerCase()) });
    return field("Search", box);
  };
  const checks = (legend, options, chosen, change) =>
    h("fieldset", { class: "checks" }, h("legend", {}, legend), options.map(([key, words]) => {
      const box = h("input", { type: "checkbox", value: key, checked: chosen.has(key),
        onchange: () => { box.checked ? chosen.add(key) : chosen.delete(key); change(box); } });
      return h("label", {}, box, words);
    }));
  const runLink = (run) => h("a", { href: `#/record?run=${encodeURIComponent(run)}` }, h("code", {}, run));

  // Numbers, as BENCHMARKS.md prints them. An exact tie is rounded to even, as Python does.
  const NONE = "–";
  const one = (value) => {
    if (Number.isInteger(value * 4) && !Number.isInteger(value * 2)) {
      const tenths = Math.floor(value * 10);
      return ((tenths % 2 ? tenths + 1 : tenths) / 10).toFixed(1);
    }
    return value.toFixed(1);
  };
  const percent = (value) => (value == null ? NONE : one(100 * value));
  const spread = (value, deviation) => percent(value) + (deviation == null ? "" : ` ± ${one(100 * deviation)}`);
  const interval = (pair) => (pair ? `[${percent(pair[0])}, ${percent(pair[1])}]` : NONE);
  const signed = (points) => (one(points) === "0.0" || one(points) === "-0.0" ? "0.0" : (points > 0 ? "+" : "") + one(points));
  const rate = (value) => (value == null ? NONE
    : value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3))));
  const scaled = (value, unit) => (value == null ? NONE : (value / unit).toFixed(2));
  const format = {
    NONE, one, percent, spread, interval, signed, rate,
    millions: (value) => scaled(value, 1e6), giga: (value) => scaled(value, 1e9), gibibytes: (value) => scaled(value, 2 ** 30),
  };

  // Addresses: #/view?name=value
  const address = () => {
    const [name, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
    return { name: name || "overview", parameters: new URLSearchParams(query) };
  };
  const remember = (name, values) => history.replaceState(null, "", `#/${name}?${new URLSearchParams(values)}`);
  const view = (name, title, render) => views.set(name, { title, render });

  let shown = 0;
  const show = async () => {
    if (location.hash && !location.hash.startsWith("#/")) return;
    const { name, parameters } = address();
    const turn = ++shown;
    document.getElementById("dialog").close();
    const fixed = name === "about" || name === "overview" || !views.has(name);
    const id = fixed ? (name === "about" ? "about" : "overview") : "view";
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== id;
    for (const link of document.querySelectorAll("nav a")) {
      const current = link.dataset.view === (name === "record" ? "records" : name);
      current ? link.setAttribute("aria-current", "page") : link.removeAttribute("aria-current");
      const bar = link.closest("nav");
      if (current) bar.scrollLeft = link.offsetLeft - bar.clientWidth / 3;
    }
    const section = document.getElementById(id);
    if (!fixed) {
      const body = h("div", { class: "body" });
      section.replaceChildren(h("h1", {}, views.get(name).title), body);
      section.setAttribute("aria-busy", "true");
      try {
        const made = await views.get(name).render(body, parameters);
        if (turn === shown && made instanceof Node) body.append(made);
      } catch (error) {
        body.append(h("p", { class: "notice" }, String(error.message ?? error)));
      }
      section.setAttribute("aria-busy", "false");
    }
    if (turn !== shown) return;
    document.title = `${section.querySelector("h1").textContent} – Re-identification benchmarks`;
    section.dataset.ready = name;
  };

  const open = (title, ...content) => {
    const dialog = document.getElementById("dialog");
    dialog.replaceChildren();
    add(dialog,
      h("div", { class: "top" }, h("h2", { id: "dialog-title" }, title),
        h("button", { type: "button", onclick: () => dialog.close() }, "Close")), ...content);
    if (!dialog.open) dialog.showModal();
    dialog.scrollTop = 0;
  };

  const onTheme = new Set();
  const setTheme = (name) => {
    root.dataset.theme = name;
    document.getElementById("theme").textContent = name === "dark" ? "Light theme" : "Dark theme";
    for (const act of onTheme) act();
  };
  const start = () => {
    const button = document.getElementById("theme");
    setTheme(root.dataset.theme);
    button.addEventListener("click", () => {
      const name = root.dataset.theme === "dark" ? "light" : "dark";
      try { localStorage.setItem("theme", name); } catch { /* storage is off */ }
      setTheme(name);
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault(); // the address keeps the view
      document.getElementById("main").focus();
    });
    addEventListener("hashchange", () => { show(); scrollTo(0, 0); });
    return show();
  };

  return { put, script, need, optional, file, objects, board, h, add, linked, simple, select, search, checks, runLink,
    format, address, remember, view, show, open, onTheme, start };
})();
