"use strict";
// Hardware and software of the runs.
(() => {
  const { h, format } = site;
  site.view("environments", "Environments", async (body) => {
    const found = await site.need("environments");
    if (!found.length) return h("p", {}, "There are no runs yet.");
    const names = [...new Set(found.flatMap(({ environment }) => Object.keys(environment)))].sort();
    const first = ["gpu", "cpu", "torch", "python", "git_commit", "git_dirty", "packages_hash"].filter((name) => names.includes(name));
    await site.table(body, "Environments", [
      site.number("Runs", "count", String),
      ...[...first, ...names.filter((name) => !first.includes(name))].map((name) => site.text(name.replace(/_/g, " "), name)),
    ], found.map(({ environment, count }, id) => ({ id, ...environment, count })), { initialSort: [{ column: "count", dir: "desc" }] });
    site.add(body, h("h2", {}, "Runs by environment"), ...found.map(({ environment, count, runs }) => h("p", {},
      `${environment.gpu ?? environment.cpu ?? format.NONE}, torch ${environment.torch ?? format.NONE}, commit ${String(environment.git_commit ?? format.NONE).slice(0, 12)}: `,
      runs.map((run) => [site.runLink(run), " "]), count > runs.length && `and ${count - runs.length} more`)));
  });
})();
