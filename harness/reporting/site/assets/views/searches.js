"use strict";
// Hyperparameter searches: trials by point and by epoch, importance of the parameters, and final runs.
(() => {
  const { h, format } = site;
  const state = { search: 0, parameter: null };
  const shown = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value ?? format.NONE));

  const byEpoch = (place, search) => site.chart(place, {
    label: "Held-out mAP of each trial by epoch", x: { title: "epoch" }, y: { title: "held-out mAP (%)" },
    shapes: search.rungs.map((rung) => ({ type: "line", x0: rung, x1: rung, y0: 0, y1: 1, yref: "paper", line: { dash: "dot", width: 1, color: "#888" } })),
    traces: search.trials.filter((trial) => trial.curve.length).map((trial) => ({
      x: trial.curve.map(([epoch]) => epoch), y: trial.curve.map(([, value]) => 100 * value), mode: "lines+markers", showlegend: false, hoverinfo: "text",
      text: trial.curve.map(([epoch, value]) => `<b>trial ${trial.number}</b> ${site.plain(trial.name)} (${trial.state})<br>epoch ${epoch}: ${format.percent(value)} %`),
      line: { color: trial.name ? "#d55e00" : trial.state === "finished" ? "#0072b2" : "#999", width: trial.name ? 2.5 : 1.2 }, marker: { size: 4 } })),
    columns: ["Trial", "State", "Last epoch", "Held-out mAP (%)"],
    rows: search.trials.map((trial) => [`${trial.number} ${trial.name}`, trial.state, String(trial.curve.at(-1)?.[0] ?? 0), format.percent(trial.curve.at(-1)?.[1])]),
  });
  const byParameter = (place, search) => {
    const found = search.trials.filter((trial) => trial.value != null);
    const words = typeof found[0]?.point[state.parameter] !== "number";
    return site.chart(place, {
      label: `Held-out mAP by ${state.parameter}`, x: { title: site.plain(state.parameter), type: words ? "category" : "linear" }, y: { title: "held-out mAP (%)" },
      traces: [{ x: found.map(({ point }) => (words ? site.plain(point[state.parameter]) : point[state.parameter])), y: found.map((trial) => 100 * trial.value), mode: "markers", hoverinfo: "text", showlegend: false,
        text: found.map((trial) => `<b>trial ${trial.number}</b> ${site.plain(trial.name)}<br>${Object.entries(trial.point).map(([name, value]) => site.plain(`${name} ${shown(value)}`)).join("<br>")}<br>${format.percent(trial.value)} %`),
        marker: { size: 10, color: found.map((trial) => (trial.name ? "#d55e00" : "#0072b2")) } }],
      columns: ["Trial", state.parameter, "Held-out mAP (%)"], rows: found.map((trial) => [String(trial.number), shown(trial.point[state.parameter]), format.percent(trial.value)]),
    });
  };

  site.view("searches", "Searches", async (body) => {
    const searches = await site.need("searches");
    if (!searches.length) return h("p", {}, "There are no searches yet.");
    const place = h("div");
    const draw = async () => {
      const search = searches[state.search];
      if (!search.parameters.includes(state.parameter)) state.parameter = search.parameters[0];
      const { shares, trials, epoch } = search.importance;
      const [curves, points] = [h("div"), h("div")];
      place.replaceChildren(
        h("p", {}, search.about),
        h("p", {}, `${search.trials.length} of ${search.samples} trials, sampler ${search.sampler}; ${search.spent[0]} of ${search.spent[1]} epochs were run. Trials are scored on ${format.percent(search.holdout)} % of the training identities. Do not compare held-out mAP with test scores.`),
        h("h2", {}, "Trials by epoch"), curves, h("h2", {}, "Trials by parameter"),
        h("div", { class: "filters" }, site.select("Parameter", search.parameters.map((name) => [name, name]), state.parameter, (value) => { state.parameter = value; points.replaceChildren(); byParameter(points, search); })),
        points,
        h("h2", {}, "Importance"),
        Object.keys(shares).length
          ? site.simple("Importance of the parameters", ["Parameter", "Share of the explained variance (%)"], Object.entries(shares).sort((a, b) => b[1] - a[1]).map(([name, share]) => [name, format.percent(share)]))
          : h("p", {}, `Not computed: ${trials} scored trials are too few (epoch ${epoch}).`),
        h("h2", {}, "Final runs on the test split"),
        search.finals.length
          ? site.simple("Final runs", ["Point", ...search.parameters, "Test mAP (%)", "Records"], search.finals.map((final) => [final.name, ...search.parameters.map((name) => shown(final.point[name])), `${format.spread(final.mAP, final.spread)} (${final.scores} runs)`, h("span", {}, final.runs.map((run) => [site.runLink(run), " "]))]))
          : h("p", {}, "There are no final runs yet."),
        h("h2", {}, "All trials"));
      await byEpoch(curves, search);
      await byParameter(points, search);
      await site.table(place, "Trials", [
        site.number("Trial", "number", String), site.text("Name", "name"), site.text("State", "state"), site.number("Held-out mAP", "value", format.percent),
        ...search.parameters.map((name, i) => site.number(name, `value${i}`, shown)),
        site.text("Reason", "reason", site.long), site.text("Record", "run", { formatter: (cell) => site.runLink(cell.getValue()) }),
      ], search.trials.map((trial) => ({ ...trial, ...Object.fromEntries(search.parameters.map((name, i) => [`value${i}`, trial.point[name]])) })));
    };
    site.add(body, h("div", { class: "filters" }, site.select("Search", searches.map((search, i) => [i, `${search.backbone} on ${search.dataset}, ${search.study ? `study ${search.study}, ` : ""}space ${search.space}, ${search.id.split("-").pop()}`]), state.search, (value) => { state.search = Number(value); draw(); })), place);
    await draw();
  });
})();
