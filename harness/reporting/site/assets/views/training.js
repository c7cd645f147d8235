"use strict";
// Training curves of chosen runs: losses, learning rate and speed by epoch.
(() => {
  const { h, format } = site;
  const FIRST = 6;
  const MOST = 40;
  const state = { table: null, metric: "loss", chosen: null };

  site.view("training", "Training curves", async (body) => {
    const { tables, rows } = await site.board();
    const trained = rows.filter((row) => row.source === "trained" && tables[row.table].dataset === tables[row.table].trained_on);
    const usable = tables.map((one, i) => [i, one.title]).filter(([i]) => trained.some((row) => row.table === i));
    if (!usable.length) return h("p", {}, "There are no trained runs yet.");
    state.table ??= usable[0][0];
    const place = h("div");
    const choices = h("div");
    const metrics = h("div", { class: "filters" });
    const list = () => {
      const labels = new Map();
      for (const row of trained.filter((one) => one.table === state.table)) {
        for (const run of row.runs) if (!labels.has(run)) labels.set(run, row.seeds.length > 1 ? `${row.label}, seed ${row.seeds.find(([name]) => name === run)?.[1] ?? "?"}` : row.label);
      }
      return [...labels].slice(0, MOST);
    };
    const draw = async () => {
      const runs = list().map(([run, label], i) => ({ run, label, look: site.look(i) })).filter(({ run }) => state.chosen.has(run));
      const files = await Promise.all(runs.map(({ run }) => site.optional(site.file("training", run))));
      const found = runs.map((one, i) => ({ ...one, curves: files[i][one.run] })).filter(({ curves }) => curves);
      place.replaceChildren();
      if (!found.length) return place.append(h("p", {}, "No training curve is stored for these runs."));
      const names = [...new Set(found.flatMap(({ curves }) => Object.keys(curves)))].filter((name) => name !== "epoch").sort();
      if (!names.includes(state.metric)) state.metric = names[0];
      metrics.replaceChildren(site.select("Metric", names.map((name) => [name, name]), state.metric, (value) => { state.metric = value; draw(); }));
      const drawn = found.filter(({ curves }) => curves[state.metric]);
      return site.chart(place, {
        label: `${state.metric} by epoch, ${tables[state.table].title}`, x: { title: "epoch" }, y: { title: site.plain(state.metric) },
        traces: drawn.map(({ run, label, look, curves }) => ({ x: curves.epoch, y: curves[state.metric], mode: "lines+markers", name: site.name(label), hoverinfo: "text",
          text: curves[state.metric].map((value, i) => `<b>${site.plain(label)}</b> (${run})<br>epoch ${curves.epoch[i]}: ${value == null ? format.NONE : Number(value.toPrecision(4))}`),
          line: { color: look.colour, dash: look.dash }, marker: { color: look.colour, symbol: look.symbol, size: 5 } })),
        columns: ["Run", "Record", "First", "Last", "Epochs"],
        rows: drawn.map(({ run, label, curves }) => [label, site.runLink(run), String(curves[state.metric].at(0)), String(curves[state.metric].at(-1)), String(curves.epoch.at(-1))]),
      });
    };
    const restart = () => {
      state.chosen = new Set(list().slice(0, FIRST).map(([run]) => run));
      choices.replaceChildren(site.checks("Runs", list(), state.chosen, draw));
      return draw();
    };
    site.add(body, h("div", { class: "filters" }, site.select("Dataset and recipe", usable, state.table, (value) => { state.table = Number(value); restart(); })), metrics, choices, place);
    await restart();
  });
})();
