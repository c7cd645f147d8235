"use strict";
// CMC curves of chosen rows of one table.
(() => {
  const { h, format } = site;
  const FIRST = 6;
  const state = { table: null, ranks: 20, test: "plain", chosen: null };

  site.view("curves", "CMC curves", async (body) => {
    const { tables, rows } = await site.board();
    const usable = tables.map((one, i) => [i, one.title]).filter(([i]) => rows.some((row) => row.table === i && row.mAP != null));
    if (!usable.length) return h("p", {}, "There are no curves yet.");
    state.table ??= usable[0][0];
    const place = h("div");
    const choices = h("div");
    const list = () => rows.filter((row) => row.table === state.table && row.test === state.test && row.mAP != null).sort((a, b) => b.mAP - a.mAP);
    const draw = async () => {
      const curves = await site.need(`curves/${state.table}`);
      const shown = list().map((row, i) => ({ row, look: site.look(i) })).filter(({ row }) => state.chosen.has(row.key) && curves[row.key]);
      place.replaceChildren();
      if (!shown.length) return place.append(h("p", {}, "Choose at least one row that has a curve."));
      const ranks = Math.min(state.ranks, Math.max(...shown.map(({ row }) => curves[row.key].length)));
      const marks = [1, 5, 10, 20, 50].filter((rank) => rank <= ranks);
      return site.chart(place, {
        label: `CMC curves, ${tables[state.table].title}`,
        x: { title: "rank k", range: [0.5, ranks + 0.5] }, y: { title: "queries with a match among the first k (%)" },
        traces: shown.map(({ row, look }) => {
          const values = curves[row.key].slice(0, ranks);
          return { x: values.map((_, k) => k + 1), y: values, mode: "lines+markers", name: site.name(row.label), hoverinfo: "text",
            text: values.map((value, k) => `<b>${site.plain(row.label)}</b><br>rank-${k + 1}: ${format.one(value)} %`),
            line: { color: look.colour, dash: look.dash }, marker: { color: look.colour, symbol: look.symbol, size: 6 } };
        }),
        columns: ["Backbone", ...marks.map((rank) => `rank-${rank}`)],
        rows: shown.map(({ row }) => [row.label, ...marks.map((rank) => (curves[row.key][rank - 1] == null ? format.NONE : format.one(curves[row.key][rank - 1])))]),
      });
    };
    const restart = () => {
      state.chosen = new Set(list().slice(0, FIRST).map((row) => row.key));
      choices.replaceChildren(site.checks("Rows, the highest mAP first", list().map((row) => [row.key, `${row.label} (${format.percent(row.mAP)})`]), state.chosen, draw));
      return draw();
    };
    site.add(body,
      h("p", {}, "Mean over seeds. CMC at k is the share of queries with a match among the first k gallery images."),
      h("div", { class: "filters" },
        site.select("Dataset and recipe", usable, state.table, (value) => { state.table = Number(value); restart(); }),
        site.select("Test", [...new Set(rows.map((row) => row.test))].sort().map((name) => [name, name]), state.test, (value) => { state.test = value; restart(); }),
        site.select("Ranks", [[10, "10"], [20, "20"], [50, "50"]], state.ranks, (value) => { state.ranks = Number(value); draw(); })),
      choices, place);
    await restart();
  });
})();
