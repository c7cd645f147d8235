"use strict";
// Accuracy against cost with the Pareto frontier: rows that no other row beats in both.
(() => {
  const { h, format } = site;
  const COSTS = {
    parameters_inference: ["Parameters at test (M)", 1e6, -1, format.millions],
    flops: ["GFLOPs", 1e9, -1, format.giga],
    images_per_second: ["Images/s at test", 1, 1, format.rate],
    memory: ["Memory (GiB)", 2 ** 30, -1, format.gibibytes],
  };
  const state = { table: null, cost: "parameters_inference", metric: "mAP", test: "plain", log: true };

  // Points sorted from the cheapest; each of the frontier scores more than all cheaper ones.
  site.frontier = (points, direction) => {
    let best = -Infinity;
    const order = [...points].sort((a, b) => direction * (b.x - a.x) || b.y - a.y);
    return order.filter((point) => point.y > best && ((best = point.y), true));
  };

  site.view("cost", "Accuracy and cost", async (body) => {
    const { tables, rows } = await site.board();
    const usable = tables.map((one, i) => [i, one.title]).filter(([i]) => rows.some((row) => row.table === i && row.mAP != null));
    if (!usable.length) return h("p", {}, "There are no scores yet.");
    state.table ??= usable.map(([i]) => [i, rows.filter((row) => row.table === i).length]).sort((a, b) => b[1] - a[1])[0][0];
    const place = h("div");
    const draw = () => {
      const [title, unit, direction, show] = COSTS[state.cost];
      const chosen = rows.filter((row) => row.table === state.table && row.test === state.test && row[state.metric] != null && row[state.cost] != null);
      const points = chosen.map((row, i) => ({ x: row[state.cost] / unit, y: 100 * row[state.metric], row, i }));
      const frontier = site.frontier(points, direction);
      const on = new Set(frontier);
      const drawn = points.filter((point) => !state.log || point.x > 0);
      const line = frontier.filter((point) => drawn.includes(point));
            place.replaceChildren();
      if (!points.length) return place.append(h("p", {}, "No row has both numbers."));
      if (drawn.length < points.length) place.append(h("p", {}, "A cost of zero is not on a logarithmic axis; the table has all rows."));
      const words = (point) => `<b>${site.plain(point.row.label)}</b><br>${state.metric} ${format.spread(point.row[state.metric], point.row.spread[state.metric])} %, interval ${format.interval(point.row.interval[state.metric])}<br>${title} ${show(point.row[state.cost])}<br>${site.plain(point.row.device)}`;
      const names = [...new Set(drawn.map((point) => point.row.backbone))].sort();
      const traces = [
        { x: line.map((p) => p.x), y: line.map((p) => p.y), mode: "lines", name: "Pareto frontier", line: { color: "#888", dash: "dot", shape: direction > 0 ? "vh" : "hv" }, hoverinfo: "skip" },
        ...names.map((name, i) => {
          const own = drawn.filter((point) => point.row.backbone === name);
          return { x: own.map((p) => p.x), y: own.map((p) => p.y), text: own.map(words), customdata: own.map((p) => p.i), hoverinfo: "text", mode: "markers", name: site.name(name),
            marker: { size: 11, color: site.look(i).colour, symbol: site.look(i).symbol } };
        }),
      ];
      return site.chart(place, {
        label: `${state.metric} against ${title}, ${tables[state.table].title}`,
        x: { title, type: state.log ? "log" : "linear" }, y: { title: `${state.metric} (%)` }, traces,
        columns: ["Backbone", title, `${state.metric} (%)`, "Interval", "On the frontier"],
        rows: points.map((p) => [p.row.label, show(p.row[state.cost]), format.percent(p.row[state.metric]), format.interval(p.row.interval[state.metric]), on.has(p) ? "yes" : "no"]),
        click: (point) => point.customdata != null && site.detail(points[point.customdata].row, tables),
      });
    };
    const set = (name, read = String) => (value) => { state[name] = read(value); draw(); };
    site.add(body,
      h("p", {}, "A row is on the frontier if no other row is at least as cheap and scores higher. Speeds of different devices are not comparable. Select a point for its numbers and runs."),
      h("div", { class: "filters" },
        site.select("Dataset and recipe", usable, state.table, set("table", Number)),
        site.select("Cost", Object.entries(COSTS).map(([key, [title]]) => [key, title]), state.cost, set("cost")),
        site.select("Score", ["mAP", "rank-1", "rank-5", "rank-10", "mINP"].map((name) => [name, name]), state.metric, set("metric")),
        site.select("Test", [...new Set(rows.map((row) => row.test))].sort().map((name) => [name, name]), state.test, set("test")),
        site.select("Cost axis", [["log", "logarithmic"], ["linear", "linear"]], state.log ? "log" : "linear", set("log", (value) => value === "log"))),
      place);
    await draw();
  });
})();
