"use strict";
// What audits found: one table per audit, with a column per configuration.
(() => {
  const { h, format } = site;
  const state = { entry: 0 };
  const shown = (name, value) => {
    if (!value) return format.NONE;
    return name === "threshold" ? value[0].toFixed(6) : format.percent(value[0]) + (value.length > 1 ? ` ${format.interval(value.slice(1))}` : "");
  };

  site.view("audits", "Audits", async (body) => {
    const { tables } = await site.board();
    const entries = await site.need("audits");
    if (!entries.length) return h("p", {}, "No run was audited. ", h("code", {}, "python -m harness audit --run RUN_ID"), " audits one.");
    const place = h("div");
    const draw = async () => {
      const entry = entries[state.entry];
      place.replaceChildren(h("h2", {}, entry.check), h("p", {}, entry.about), entry.source ? h("p", {}, "Source: ", site.linked(entry.source)) : "");
      if (entry.rows.length) {
        await site.table(place, `Audit ${entry.check}`, [site.text("Value of", "name"), site.text("Setting", "setting"),
          ...entry.labels.map((label, i) => site.number(label, `value${i}`, (value, row) => shown(row.name, value), { sorter: (a, b) => (a?.[0] ?? -9) - (b?.[0] ?? -9) }))],
        entry.rows.map(([name, setting, ...values], i) => ({ id: i, name, setting: setting || format.NONE, ...Object.fromEntries(values.map((value, k) => [`value${k}`, value])) })));
      }
      place.append(h("ul", {}, entry.notes.map(([label, note]) => h("li", {}, `${label}: ${note}`))));
    };
    site.add(body,
      h("p", {}, "Values and 95 % intervals over identities are times 100, thresholds are not. They are means over seeds."),
      h("div", { class: "filters" }, site.select("Audit", entries.map((entry, i) => [i, `${entry.check}, ${tables[entry.table].title}`]), state.entry, (value) => { state.entry = Number(value); draw(); })), place);
    await draw();
  });
})();
