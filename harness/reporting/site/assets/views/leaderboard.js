"use strict";
// Every row of every table: filters, columns, and all that is known of a number one click away.
(() => {
  const { h, format } = site;
  const FILTERS = [["dataset", "Dataset"], ["recipe", "Recipe"], ["test", "Test"], ["start", "Start"],
    ["side", "Side information"], ["size", "Input size"], ["device", "Device"], ["origin", "Results of"]];
  const SHOWN = new Set(["dataset", "label", "test", "mAP", "interval", "rank-1", "seeds", "parameters_inference", "flops", "images_per_second"]);
  const state = { filters: null, shown: new Set(SHOWN), search: "", sort: [{ column: "mAP", dir: "desc" }] };

  const detail = (row, tables) => {
    const metrics = ["mAP", "rank-1", "rank-5", "rank-10", "mINP"].filter((name) => row[name] != null);
    const facts = [
      ["Dataset", tables[row.table].title], ["Test", row.test], ["Status", row.status + (row.note ? ` (${row.note})` : "")],
      ["Start", row.start], ["Side information", row.side], ["Input size", row.size || format.NONE], ["Source", row.source],
      ["Queries", row.n_query == null ? format.NONE : `${row.n_query}, of which ${row.n_valid} have a match; ${row.n_gallery} gallery images`],
      ["Parameters (M)", format.millions(row.parameters)], ["Parameters at test (M)", format.millions(row.parameters_inference)],
      ["GFLOPs", format.giga(row.flops)],
      ["Images/s at test", format.rate(row.images_per_second) + (row.shared ? " (other processes used the device)" : "")],
      ["Images/s in training", format.rate(row.train_images_per_second)], ["Memory (GiB)", format.gibibytes(row.memory)],
      ["Device", row.device],
    ];
    const published = row.published;
    site.open(row.label,
      tables[row.table].generated && h("p", { class: "notice" }, "Generated data: the scores say nothing about real people."),
      tables[row.table].notices.map((notice) => h("p", { class: "notice" }, notice)),
      metrics.length > 0 && [
        site.simple("Scores", ["Metric", "Mean (%)", "95 % interval over identities", "Deviation over seeds"], metrics.map((name) =>
          [name, format.percent(row[name]), format.interval(row.interval[name]), row.spread[name] == null ? format.NONE : `± ${format.percent(row.spread[name])}`])),
        h("h3", {}, "Runs"),
        site.simple("Runs", ["Record", "Seed", "mAP", "rank-1", "rank-5", "rank-10", "mINP"], row.seeds.map(([run, seed, ...values]) =>
          [site.runLink(run), String(seed), ...values.map(format.percent)]))],
      metrics.length === 0 && h("p", {}, "Records: ", row.runs.map((run) => [site.runLink(run), " "])),
      published && [h("h3", {}, "Published"),
        h("p", {}, `mAP ${published.mAP.toFixed(1)}, rank-1 ${published["rank-1"].toFixed(1)}, input ${published.size}. `,
          published.same_size
            ? `Ours minus published: ${format.signed(100 * row.mAP - published.mAP)} / ${format.signed(100 * row["rank-1"] - published["rank-1"])} points. `
            : "Not compared, because the input size differs. ",
          published.setup ? `Set-up: ${published.setup}. ` : "", "Source: ", site.linked(published.source))],
      h("h3", {}, "Set-up and cost"), site.simple("Set-up and cost", ["", ""], facts));
  };
  site.detail = detail;

  const columns = (tables) => [
    site.text("Backbone", "label", { ...site.long, frozen: true, formatter: (cell) => {
      const row = cell.getData();
      return h("a", { href: `#/leaderboard?row=${encodeURIComponent(row.key)}`, onclick: (event) => { event.preventDefault(); detail(row, tables); } }, row.label);
    } }),
    site.text("Dataset", "dataset", { formatter: (cell) => document.createTextNode(tables[cell.getData().table].title) }),
    site.text("Test", "test"),
    site.number("mAP", "mAP", (value, row) => (value == null ? row.status : format.spread(value, row.spread.mAP)), { about: "Percent, mean over seeds ± deviation" }),
    site.number("95 % interval", "interval", (value) => format.interval(value.mAP), { headerSort: false, about: "Of mAP, over the identities of the queries" }),
    site.number("rank-1", "rank-1", (value, row) => format.spread(value, row.spread["rank-1"])),
    site.number("rank-5", "rank-5", (value, row) => format.spread(value, row.spread["rank-5"])),
    site.number("rank-10", "rank-10", (value, row) => format.spread(value, row.spread["rank-10"])),
    site.number("mINP", "mINP", (value, row) => format.spread(value, row.spread.mINP)),
    site.number("Seeds", "seeds", (value) => String(value.length), { sorter: (a, b) => a.length - b.length }),
    site.number("Published mAP", "published", (value) => (value ? value.mAP.toFixed(1) + (value.same_size ? "" : ` at ${value.size}`) : format.NONE), { sorter: (a, b) => (a?.mAP ?? -1) - (b?.mAP ?? -1) }),
    site.number("Params at test (M)", "parameters_inference", format.millions),
    site.number("Params (M)", "parameters", format.millions),
    site.number("GFLOPs", "flops", format.giga),
    site.number("Images/s", "images_per_second", (value, row) => format.rate(value) + (row.shared ? " (shared)" : ""), { about: "At test; (shared): other processes used the device" }),
    site.number("Train images/s", "train_images_per_second", format.rate),
    site.number("Memory (GiB)", "memory", format.gibibytes),
    site.text("Recipe", "recipe"), site.text("Start", "start"), site.text("Side information", "side"),
    site.text("Input size", "size"), site.text("Device", "device"), site.text("Source", "source"), site.text("Results of", "origin"), site.text("Status", "status"),
  ];

  // On a phone, the scores come first.
  const ordered = (all) => {
    const last = (column) => matchMedia("(max-width: 820px)").matches && ["dataset", "test"].includes(column.field);
    return [...all.filter((column) => !last(column)), ...all.filter(last)];
  };

  const matches = (row) =>
    FILTERS.every(([field]) => !state.filters[field] || String(row[field]) === state.filters[field]) &&
    (!state.search || `${row.label} ${row.dataset} ${row.recipe} ${row.status}`.toLowerCase().includes(state.search));

  site.view("leaderboard", "Leaderboard", async (body, parameters) => {
    const { tables, rows } = await site.board();
    const asked = rows.find((row) => row.key === parameters.get("row"));
    if (asked) state.filters = { dataset: asked.dataset };
    state.filters ??= { test: rows.some((row) => row.test === "plain") ? "plain" : "" };
    let table = null;
    const count = h("p", { role: "status" });
    const apply = () => table?.setFilter(matches);
    const values = (field) => [...new Set(rows.map((row) => String(row[field])))].sort();
    const fields = FILTERS.filter(([field]) => values(field).length > 1).map(([field, title]) =>
      site.select(title, [["", "all"], ...values(field).map((value) => [value, value])], state.filters[field] ?? "",
        (value) => { state.filters[field] = value; apply(); }));
    const search = site.search(state.search, (value) => { state.search = value; apply(); });
    const defined = ordered(columns(tables));
    const chooser = h("details", { class: "columns" }, h("summary", {}, "Columns"),
      site.checks("Shown columns", defined.filter((c) => c.field !== "label").map((c) => [c.field, c.title]), state.shown,
        (box) => (box.checked ? table.showColumn(box.value) : table.hideColumn(box.value))));
    site.add(body,
      h("p", {}, "Scores in percent, mean over seeds ± deviation. Rows of different datasets or recipes are not comparable. Select a backbone for its intervals, sources and records."),
      tables.some((one) => one.generated) && h("p", { class: "notice" }, "Rows of generated data say nothing about accuracy on real people."),
      h("div", { class: "filters" }, search, fields), chooser, count);
    table = await site.table(body, "Leaderboard", defined.map((column) => ({ ...column, visible: column.field === "label" || state.shown.has(column.field) })),
      rows, { index: "key", initialSort: state.sort, initialFilter: [{ field: matches }] });
    const counted = () => { count.textContent = `${table.getDataCount("active").toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`; };
    table.on("dataFiltered", (_, found) => { count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} rows`; });
    table.on("dataSorted", (sorters) => { state.sort = sorters.map(({ field, dir }) => ({ column: field, dir })); });
    apply();
    counted();
    if (asked) detail(asked, tables);
  });
})();
