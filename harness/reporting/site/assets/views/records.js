"use strict";
// The list of all runs, and one record as it is on disk.
(() => {
  const { h, format } = site;
  const state = { status: "", purpose: "", search: "" };

  site.view("records", "Runs", async (body) => {
    const rows = site.objects(await site.need("records"));
    let table = null;
    const matches = (row) => (!state.status || row.status === state.status) && (!state.purpose || row.purpose === state.purpose) &&
      (!state.search || `${row.run} ${row.backbone} ${row.dataset} ${row.recipe}`.toLowerCase().includes(state.search));
    const count = h("p", { role: "status" });
    const apply = () => table.setFilter(matches);
    const choice = (title, field) => site.select(title, [["", "all"], ...[...new Set(rows.map((row) => row[field]))].sort().map((value) => [value, value])], state[field], (value) => { state[field] = value; apply(); });
    const search = site.search(state.search, (value) => { state.search = value; apply(); });
    site.add(body, h("div", { class: "filters" }, search, choice("Status", "status"), choice("Source", "purpose")), count);
    table = await site.table(body, "Runs", [
      site.text("Record", "run", { frozen: true, formatter: (cell) => site.runLink(cell.getValue()) }), site.text("Backbone", "backbone"), site.text("Dataset", "dataset"), site.text("Recipe", "recipe"),
      site.number("Seed", "seed", String), site.text("Source", "purpose"), site.text("Status", "status"), site.number("mAP", "mAP", format.percent), site.number("rank-1", "rank-1", format.percent), site.text("Started", "started"),
    ], rows, { index: "run", initialSort: [{ column: "started", dir: "desc" }] });
    table.on("dataFiltered", (_, found) => { count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} runs`; });
    apply();
  });

  const shown = (value) => (value == null ? format.NONE : typeof value === "object" ? JSON.stringify(value) : String(value));
  const facts = (title, table) => [h("h2", {}, title), Object.keys(table).length
    ? site.simple(title, ["Key", "Value"], Object.entries(table).map(([key, value]) => [key, shown(value)])) : h("p", {}, "Not recorded.")];

  site.view("record", "Record", async (body, parameters) => {
    const run = parameters.get("run") ?? "";
    const record = /^[0-9a-f]{12}(-\d+)?$/.test(run) ? (await site.optional(site.file("records", run)))[run] : null;
    if (!record) return h("p", { class: "notice" }, run ? `There is no record ${run}. ` : "The address names no record. ", h("a", { href: "#/records" }, "List of all runs"));
    const { spec } = record;
    const test = (row) => (!row.trained && "before training") || [row.flip && "flip", row.rerank && "re-ranking"].filter(Boolean).join(" + ") || "plain";
    site.add(body,
      h("p", {}, h("b", {}, spec.backbone), ` on ${spec.dataset}, recipe ${spec.recipe}, seed ${spec.seed}; ${record.source}, ${record.status}.`),
      h("p", {}, "Run id ", h("code", {}, record.run_id)));
    if (record.error) site.add(body, h("p", { class: "notice" }, `${record.stage ?? "unknown stage"}: ${record.error.type}: ${record.error.message}`));
    if (record.data?.generated) site.add(body, h("p", { class: "notice" }, "Generated data: the scores say nothing about real people."));
    if (record.evaluations.length) {
      site.add(body, h("h2", {}, "Scores"), site.simple("Scores", ["Dataset", "Test", "mAP (%)", "95 % interval", "rank-1", "95 % interval", "rank-5", "rank-10", "mINP", "Queries", "Ties"], record.evaluations.map((row) => [
        row.dataset, test(row), format.percent(row.mAP), format.interval(row.interval?.mAP), format.percent(row["rank-1"]), format.interval(row.interval?.["rank-1"]),
        format.percent(row["rank-5"]), format.percent(row["rank-10"]), format.percent(row.mINP), `${row.n_valid} of ${row.n_query}`, shown(row.tied_queries)])));
    }
    site.add(body, ...facts("Environment", record.environment).flat(), ...facts("Cost", record.efficiency).flat(), ...facts("Settings", spec.values).flat(),
      h("h2", {}, "record.json"), h("details", {}, h("summary", {}, "The whole record"), h("pre", { tabindex: 0, role: "region", "aria-label": "The whole record" }, JSON.stringify(record, null, 1))));
  });
})();
