"use strict";
// Verdicts on published numbers and on the claims of cards.
(() => {
  const { h, format } = site;
  const points = (pair) => (pair ? `[${format.one(pair[0])}, ${format.one(pair[1])}]` : format.NONE);

  const aboutNumber = (result) => site.open(`${result.backbone} on ${result.dataset}`,
    h("p", {}, `Verdict: ${result.verdict}. ${result.reason}`),
    site.simple("Numbers", ["Metric", "Published", "Ours", "Difference", "Over seeds", "Over identities", "Verdict"], result.numbers.map((number) => [
      number.metric, number.published.toFixed(1), number.ours == null ? format.NONE : format.one(number.ours), number.difference == null ? format.NONE : format.signed(number.difference),
      points(number.over_seeds), points(number.over_queries), number.verdict])),
    h("p", {}, `Test: ${result.test}, input ${result.image_size.join(" × ")}. ${result.setup ? `Set-up: ${result.setup}.` : ""}`),
    h("p", {}, "Source: ", site.linked(result.source)),
    result.runs.length > 0 && h("p", {}, "Records: ", result.runs.map((run) => [site.runLink(run), " "])));
  const aboutClaim = (claim) => site.open(claim.words,
    h("p", {}, `${claim.backbone}: ${claim.verdict}. ${claim.reason}`), claim.source && h("p", {}, "Source: ", site.linked(claim.source)),
    claim.pairs.length > 0 && site.simple("Compared records", ["Where", "Ours", "Theirs", "Ratio", "Holds", "Records"], claim.pairs.map((pair) => [
      `${pair.comparator}, ${pair.where}`, String(Number(pair.ours.toPrecision(5))), String(Number(pair.theirs.toPrecision(5))), pair.ratio.toFixed(3),
      pair.holds == null ? `undecided: ${pair.reason}` : pair.holds ? "yes" : "no", h("span", {}, pair.runs.map((run) => [site.runLink(run), " "]))])));

  const part = async (body, title, rules, rows, columns) => {
    site.add(body, h("h2", {}, title), h("details", {}, h("summary", {}, "The rule"), h("ul", {}, rules.map((rule) => h("li", {}, rule)))));
    if (!rows.length) return site.add(body, h("p", {}, "The cards have none."));
    const verdicts = [...new Set(rows.map((row) => row.verdict))].sort();
    let table = null;
    const made = (row) => (row.runs ?? row.pairs).length > 0;
    const first = rows.some(made) ? "run" : "";
    const test = (value) => (row) => !value || (value === "run" ? made(row) : row.verdict === value);
    site.add(body, h("div", { class: "filters" }, site.select("Verdict", [["", "all"], ["run", "all with runs"], ...verdicts.map((name) => [name, `${name} (${rows.filter((row) => row.verdict === name).length})`])], first, (value) => table.setFilter(test(value)))));
    table = await site.table(body, title, columns, rows, { initialFilter: [{ field: test(first) }] });
    table.setFilter(test(first));
  };
  const opener = (act) => (cell) => h("button", { type: "button", class: "link", onclick: () => act(cell.getData()) }, String(cell.getValue()));

  site.view("claims", "Claims", async (body) => {
    const { rules, published, claims } = await site.need("claims");
    await part(body, "Published numbers and our runs", rules.published, published, [
      site.text("Backbone", "backbone", { frozen: true, formatter: opener(aboutNumber) }), site.text("Dataset", "dataset"), site.text("Test", "test"),
      site.number("Published mAP", "numbers", (value) => value[0].published.toFixed(1), { sorter: (a, b) => a[0].published - b[0].published }),
      site.number("Our mAP", "seeds", (_, row) => (row.numbers[0].ours == null ? format.NONE : format.one(row.numbers[0].ours) + (row.numbers[0].deviation == null ? "" : ` ± ${format.one(row.numbers[0].deviation)}`)), { headerSort: false }),
      site.text("Verdict", "verdict"), site.text("Why", "reason", site.long),
    ]);
    await part(body, "Claims of the cards", rules.claims, claims, [
      site.text("Backbone", "backbone", { frozen: true }), site.text("Claim", "words", { ...site.long, formatter: opener(aboutClaim) }), site.text("Verdict", "verdict"), site.text("Why", "reason", site.long)]);
  });
})();
