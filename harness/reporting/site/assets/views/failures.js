"use strict";
// What has no score, and why.
(() => {
  const { h } = site;
  const columns = (more) => [site.text("Backbone", "backbone", { frozen: true }), site.text("Dataset", "dataset"), site.text("Recipe", "recipe"), ...more];

  site.view("failures", "Failed and blocked", async (body) => {
    const { failed, blocked, problems, remarks } = await site.need("failures");
    if (!failed.length && !blocked.length && !problems.length && !remarks.length) return h("p", {}, "No run failed and no run is blocked.");
    site.add(body, h("h2", {}, "Failed runs"));
    if (failed.length) {
      await site.table(body, "Failed runs", columns([site.number("Seed", "seed", String), site.text("Status", "status"), site.text("Stage", "stage"), site.text("Reason", "reason", site.long),
        site.text("Record", "run", { formatter: (cell) => site.runLink(cell.getValue()) })]), failed);
    } else site.add(body, h("p", {}, "None."));
    site.add(body, h("h2", {}, "Blocked runs"));
    if (blocked.length) await site.table(body, "Blocked runs", columns([site.text("Reason", "reason", site.long)]), blocked);
    else site.add(body, h("p", {}, "None."));
    site.add(body, h("h2", {}, "Unreadable records"), problems.length ? h("ul", {}, problems.map((problem) => h("li", {}, problem))) : h("p", {}, "None."),
      remarks.length > 0 && [h("h2", {}, "Duplicates and contradictions between results folders"), h("ul", {}, remarks.map((remark) => h("li", {}, remark)))]);
  });
})();
