"use strict";
// Backbones that were tuned with equal budgets: medians over studies, with the smallest and largest value.
(() => {
  const { h, format } = site;
  const range = (value, show) => (value ? `${show(value[0])} [${show(value[1])}, ${show(value[2])}]` : format.NONE);
  const column = (title, field, show) => site.number(title, field, (value) => range(value, show), { sorter: (a, b) => (a?.[0] ?? -9) - (b?.[0] ?? -9) });

  site.view("tuned", "Tuned with equal budgets", async (body) => {
    const entries = await site.need("tuned");
    if (!entries.length) return h("p", {}, "No backbone was tuned with ", h("code", {}, "run --recipe tuned"), " yet.");
    site.add(body, h("p", {}, "Every backbone had the same search, chosen on held-out training identities. Medians over studies in percent, in brackets the smallest and the largest. ", h("a", { href: "#/searches" }, "Searches"), " has the trials of each study."));
    for (const entry of entries) {
      site.add(body, h("h2", {}, entry.title));
      await site.table(body, entry.title, [
        site.text("Backbone", "label", { ...site.long, frozen: true }), column("mAP", "mAP", format.percent), column("Untuned mAP", "untuned", format.percent),
        column("Gain (points)", "gain", (value) => format.signed(100 * value)), column("rank-1", "rank-1", format.percent), column("Held-out mAP", "held_out", format.percent),
        site.number("Studies", "studies", (value) => value.join(" of "), { sorter: (a, b) => a[0] - b[0] }), site.number("Hours", "hours", (value) => value.toFixed(2)),
        site.text("Records", "runs", { headerSort: false, formatter: (cell) => h("span", {}, cell.getValue().map((run) => [site.runLink(run), " "])) }),
      ], entry.rows, { index: "label", initialSort: [{ column: "mAP", dir: "desc" }] });
    }
  });
})();
