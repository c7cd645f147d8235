"use strict";
// Tables that sort and filter, by Tabulator.
site.table = async (parent, label, columns, rows, options = {}) => {
  await site.script("vendor/tabulator.min.js");
  const holder = site.h("div", { class: "grid" });
  parent.append(holder);
  const narrow = matchMedia("(max-width: 700px)").matches;
  const table = new Tabulator(holder, {
    data: rows,
    columns: columns.map(({ about, ...column }) => ({ headerTooltip: about ?? false, ...column,
      titleFormatter: () => document.createTextNode(column.title), // Tabulator takes titles for markup
      frozen: Boolean(column.frozen) && !narrow, resizable: false, headerSortTristate: true })),
    layout: "fitDataFill",
    maxHeight: "min(75vh, 60rem)",
    columnDefaults: { headerSortStartingDir: "desc", vertAlign: "middle" },
    placeholder: site.h("div", { role: "row" }, site.h("div", { role: "gridcell" }, "Nothing to show.")),
    ...options,
  });
  await new Promise((resolve) => table.on("tableBuilt", resolve));
  // Tabulator puts a focusable element without a role between the grid and its rows.
  holder.setAttribute("aria-label", label);
  holder.removeAttribute("aria-owns");
  holder.querySelector(".tabulator-tableholder").setAttribute("role", "rowgroup");
  holder.querySelector(".tabulator-tableholder > .tabulator-table").setAttribute("role", "presentation");
  for (const header of holder.querySelectorAll(".tabulator-col.tabulator-sortable")) {
    header.tabIndex = 0;
    header.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); header.click(); }
    });
  }
  return table;
};

// Numbers are right-aligned; `show` formats, and missing values sort last in both directions.
site.number = (title, field, show, more = {}) => ({
  title, field, hozAlign: "right", headerHozAlign: "right",
  formatter: (cell) => document.createTextNode(show(cell.getValue(), cell.getData())),
  sorter: (a, b, first, second, column, direction) => {
    if (a != null && b != null) return a - b;
    return ((a == null) - (b == null)) * (direction === "asc" ? 1 : -1);
  },
  ...more,
});
// For columns of sentences: they wrap.
site.long = { maxWidth: 480, variableHeight: true, cssClass: "wrap" };
site.text = (title, field, more = {}) => ({
  title, field, headerSortStartingDir: "asc",
  formatter: (cell) => document.createTextNode(String(cell.getValue() ?? site.format.NONE)),
  ...more,
});
