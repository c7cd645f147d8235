"use strict";
// A matrix of paired comparisons: each cell is the row minus the column, in points of mAP.
(() => {
  const { h, format } = site;
  const state = { family: 0 };

  const oriented = (family, row, column) => {
    const pair = family.pairs.find((one) => (one.first === row && one.second === column) || (one.first === column && one.second === row));
    if (!pair || pair.first === row) return pair;
    return { ...pair, difference: -pair.difference, interval: [-pair.interval[1], -pair.interval[0]], ahead: -pair.ahead };
  };
  const seeds = (family, pair, row, column) => {
    const deviations = [family.spread[row], family.spread[column]];
    if (deviations.includes(null)) return "At least one has one seed only, so nothing is known about training again.";
    const larger = Math.abs(pair.difference) > Math.max(...deviations);
    return `The difference is ${larger ? "larger than" : "within"} the deviation over seeds (${deviations.map(format.percent).join(" and ")}).`;
  };
  const p = (value) => (value >= 0.0001 ? value.toFixed(4) : "< 0.0001");
  const range = (pair) => `[${format.signed(100 * pair.interval[0])}, ${format.signed(100 * pair.interval[1])}]`;
  const explain = (family, pair, row, column) => site.open(`${family.labels[row]} minus ${family.labels[column]}`,
    site.simple("Comparison", ["", ""], [
      ["Difference in mAP (points)", format.signed(100 * pair.difference)],
      ["95 % interval over identities", range(pair)],
      ["p, corrected by Holm", p(pair.p)],
      ["On these queries", pair.ahead ? `${family.labels[pair.ahead > 0 ? row : column]} is ahead` : "no difference shown"],
    ]), h("p", {}, seeds(family, pair, row, column)));

  site.view("significance", "Significance", async (body) => {
    const { tables } = await site.board();
    const { families, resamples } = await site.need("significance");
    const usable = families.map((family, i) => [i, tables[family.table].title]).filter(([i]) => families[i].labels.length > 1);
    if (!usable.length) return h("p", {}, "No two configurations have per-query values of the same queries.");
    if (!usable.some(([i]) => i === state.family)) state.family = usable[0][0];
    const place = h("div");
    const draw = () => {
      const family = families[state.family];
      const order = family.labels.map((_, i) => i).sort((a, b) => family.mAP[b] - family.mAP[a]);
      const cell = (row, column) => {
        const pair = row === column ? null : oriented(family, row, column);
        if (!pair) return h("td", {}, format.NONE);
        const words = pair.ahead > 0 ? "ahead" : pair.ahead < 0 ? "behind" : "not shown";
        return h("td", { class: `cell ${words.replace(" ", "-")}` },
          h("button", { type: "button", onclick: () => explain(family, pair, row, column), "aria-label": `${family.labels[row]} minus ${family.labels[column]}: ${format.signed(100 * pair.difference)} points, ${words}` },
            h("b", {}, format.signed(100 * pair.difference)), h("small", {}, words)));
      };
      place.replaceChildren(
        h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Significance matrix" },
          h("table", { class: "plain matrix" },
            h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Row minus column"), order.map((i) => h("th", { scope: "col" }, family.labels[i])))),
            h("tbody", {}, order.map((row) => h("tr", {}, h("th", { scope: "row" }, `${family.labels[row]} (${format.percent(family.mAP[row])})`), order.map((column) => cell(row, column))))))),
        h("ul", {}, family.remarks.map((remark) => h("li", {}, remark))));
    };
    site.add(body,
      h("p", {}, `Differences in mAP, in percentage points, on the AP of the same queries, averaged over seeds. A backbone is ahead if p < 0.05 after Holm's correction within the table (paired randomisation test, ${resamples.toLocaleString("en")} resamples) and the 95 % interval excludes zero. “Not shown” does not mean equal. Select a cell for its interval and p-value.`),
      h("div", { class: "filters" }, site.select("Dataset and recipe", usable, state.family, (value) => { state.family = Number(value); draw(); })), place);
    draw();
  });
})();
