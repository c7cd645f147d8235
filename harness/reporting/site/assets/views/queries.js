"use strict";
// Ranked lists of several configurations side by side, for the queries on which they disagree most.
(() => {
  const { h, format } = site;
  const MOST = 4;
  const state = { table: null, chosen: null };

  const tile = (data, [place, distance], rank, query) => {
    const [path, pid, camera, picture] = data.images[place];
    const match = pid === query.pid;
    return h("li", { class: match ? "tile match" : "tile other" }, image(path, picture),
      h("span", { class: "words" }, h("b", {}, `${rank}. ${match ? "✓ match" : "✗ other"}`),
        h("span", {}, `distance ${distance.toFixed(4)}`), h("span", {}, camera == null ? "camera unknown" : `camera ${camera}`)));
  };
  const image = (path, picture) => (picture
    ? h("img", { src: `${document.documentElement.dataset.base}/${picture}`, alt: path, title: path, loading: "lazy" })
    : h("span", { class: "placeholder", title: path }, path));

  const spread = (query, chosen) => {
    const scores = chosen.map((i) => query.AP[i]);
    return chosen.length > 1 ? Math.max(...scores) - Math.min(...scores) : -scores[0];
  };

  const card = (data, query, chosen) => {
    const listed = chosen.filter((i) => query.lists[i]);
    const missing = chosen.filter((i) => !query.lists[i] && !data.problems[i]); // problems are named once, above
    const difference = chosen.length > 1 ? `, difference ${format.one(100 * spread(query, chosen))}` : "";
    const own = query.image == null ? null : data.images[query.image];
    return h("article", { class: "query" },
      h("h2", {}, `Query ${query.query}`),
      h("p", {}, `Identity ${query.pid}, camera ${query.camera}. AP in percent: `, chosen.map((i, k) => `${k ? ", " : ""}${data.labels[i]} ${format.one(100 * query.AP[i])}`), difference, "."),
      h("div", { class: "lists" },
        own && h("div", { class: "own" }, h("h3", {}, "Query image"), h("div", { class: "tile" }, image(own[0], own[3]))),
        listed.map((i) => h("div", { class: "list", "data-key": data.keys[i] },
          h("h3", {}, `${data.labels[i]}: AP ${format.one(100 * query.AP[i])}`),
          h("ol", { class: "tiles", tabindex: 0, "aria-label": `Nearest gallery images of ${data.labels[i]}` }, query.lists[i].map((entry, rank) => tile(data, entry, rank + 1, query)))))),
      missing.length > 0 && h("p", {}, `No ranked list of ${missing.map((i) => data.labels[i]).join(", ")}.`));
  };

  // Queries without any ranked list need one line each.
  const lines = (data, queries, chosen) => site.simple("AP of each query, in percent", ["Query", "Identity", "Camera", ...chosen.map((i) => data.labels[i]), ...(chosen.length > 1 ? ["Difference"] : [])],
    queries.map((query) => [query.query, query.pid, query.camera, ...chosen.map((i) => format.one(100 * query.AP[i])), ...(chosen.length > 1 ? [format.one(100 * spread(query, chosen))] : [])].map(String)));

  site.view("queries", "Queries", async (body, parameters) => {
    const { tables } = await site.board();
    const usable = (await site.need("queries")).tables.map((i) => [i, tables[i].title]);
    if (!usable.length) return h("p", {}, "No table has two configurations with per-query values of the same queries.");
    const asked = usable.find(([i]) => String(i) === parameters.get("table"))?.[0] ?? state.table ?? usable[0][0];
    if (asked !== state.table || parameters.has("keys")) state.chosen = null;
    state.table = asked;
    const choices = h("div");
    const place = h("div");
    const draw = async () => {
      const data = await site.need(`queries/${state.table}`);
      const order = data.keys.map((_, i) => i).sort((a, b) => data.mAP[b] - data.mAP[a]);
      if (!state.chosen) {
        const wanted = (parameters.get("keys") ?? "").split(",").filter((key) => data.keys.includes(key));
        state.chosen = new Set(wanted.length ? wanted : order.slice(0, 2).map((i) => data.keys[i]));
      }
      const chosen = order.filter((i) => state.chosen.has(data.keys[i]));
      const shown = chosen.length ? data.queries.filter((query) => chosen.every((i) => query.AP[i] != null)).sort((a, b) => spread(b, chosen) - spread(a, chosen) || a.query - b.query).slice(0, data.kept) : [];
      const problems = chosen.map((i) => data.problems[i]).filter(Boolean);
      choices.replaceChildren(site.checks(`Compare up to ${MOST}`, order.map((i) => [data.keys[i], `${data.labels[i]} (${format.percent(data.mAP[i])})`]), state.chosen, (box) => {
        if (state.chosen.size > MOST) { box.checked = false; state.chosen.delete(box.value); }
        draw().then(() => choices.querySelector(`input[value="${CSS.escape(box.value)}"]`)?.focus());
      }));
      site.remember("queries", { table: state.table, keys: [...state.chosen].join(",") });
      place.replaceChildren(h("div", {},
        problems.length > 0 && h("p", { class: "notice" }, problems.join(" "), " Write lists with ", h("code", {}, "python -m harness audit --run RUN_ID --checks ranked-lists"), "."),
        h("p", { role: "status" }, chosen.length > 1
          ? `The ${shown.length} of ${data.total.toLocaleString("en")} queries with the largest difference in AP, the largest first.`
          : chosen.length ? `The ${shown.length} of ${data.total.toLocaleString("en")} queries with the lowest AP.` : "Choose at least one configuration."),
        shown.some((query) => chosen.some((i) => query.lists[i])) ? shown.map((query) => card(data, query, chosen)) : shown.length > 0 && lines(data, shown, chosen)));
    };
    site.add(body,
      h("p", {}, "AP is the mean over seeds; ranked lists are those of the first seed, without images of the query's identity from its own camera. Cameras are counted from zero."),
      h("div", { class: "filters" }, site.select("Dataset and recipe", usable, state.table, (value) => { state.table = Number(value); state.chosen = null; parameters.delete("keys"); draw(); })),
      choices, place);
    await draw();
  });
})();
