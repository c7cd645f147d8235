"use strict";
// Speed, latency and memory by resolution, batch, precision or device, under chosen conditions.
(() => {
  const { h, format } = site;
  const AXES = {
    batch: ["Batch (images)", (row) => row.batch], pixels: ["Input size (pixels)", (row) => (row.height == null ? null : row.height * row.width)],
    precision: ["Precision", (row) => row.precision], device: ["Device", (row) => row.device],
  };
  const VALUES = {
    images_per_second: ["Images/s", 1, format.rate], latency: ["Milliseconds per batch", 1, format.rate], memory: ["Memory (GiB)", 2 ** 30, format.gibibytes],
  };
  const size = (row) => (row.height == null ? format.NONE : `${row.height} × ${row.width}`);
  const precision = (row) => (row.precision ?? format.NONE) + (row.compiled ? ", compiled" : "");
  const FILTERS = [["origin", "Measured by", (row) => row.origin], ["measure", "Step", (row) => row.measure], ["device", "Device", (row) => row.device],
    ["size", "Input size", size], ["batch", "Batch", (row) => String(row.batch ?? format.NONE)], ["precision", "Precision", precision]];
  const FIELD = { batch: "batch", pixels: "size", precision: "precision", device: "device" };
  const state = { x: "batch", y: "images_per_second", filters: { measure: "inference" } };

  const ticks = (values) => { const found = [...new Set(values)].sort((a, b) => a - b); return { tickvals: found, ticktext: found.map((value) => value.toLocaleString("en")) }; };

  site.view("efficiency", "Efficiency explorer", async (body) => {
    const rows = site.objects(await site.need("efficiency")).map((row) => ({ ...row, size: size(row), shown_precision: precision(row) }));
    if (!rows.length) return h("p", {}, "Nothing was measured yet.");
    state.filters.origin ??= rows.some((row) => row.origin === "profile") ? "profile" : "run";
    const place = h("div");
    const fields = h("div", { class: "filters" });
    // The axis is free; the other conditions start at the value that was measured most often.
    const reset = () => {
      const measured = rows.filter((row) => row.origin === state.filters.origin && row.measure === state.filters.measure);
      for (const [field, , read] of FILTERS.slice(2)) {
        const counts = new Map();
        for (const row of measured) counts.set(read(row), (counts.get(read(row)) ?? 0) + 1);
        state.filters[field] = field === FIELD[state.x] ? "" : [...counts].sort((a, b) => b[1] - a[1])[0]?.[0] ?? "";
      }
    };
    const chosen = () => rows.filter((row) => FILTERS.every(([field, , read]) => !state.filters[field] || read(row) === state.filters[field]));
    let table = null;
    const draw = () => {
      const [xTitle, readX] = AXES[state.x];
      const [yTitle, unit, show] = VALUES[state.y];
      const points = chosen().filter((row) => readX(row) != null && row[state.y] != null);
      const series = new Map();
      for (const row of points) {
        const parts = [row.backbone, row.measure, ...(state.x === "device" ? [] : [row.device]), ...(state.x === "pixels" ? [] : [row.size]),
          ...(state.x === "batch" ? [] : [`batch ${row.batch}`]), ...(state.x === "precision" ? [] : [row.shown_precision])];
        const name = parts.join(", ");
        series.set(name, [...(series.get(name) ?? []), row]);
      }
      table?.setData(chosen());
      place.replaceChildren();
      if (!points.length) return place.append(h("p", {}, "Nothing was measured under these conditions."));
      const common = [...series.keys()].map((name) => name.split(", "));
      const varying = common[0].map((_, k) => k === 0 || new Set(common.map((parts) => parts[k])).size > 1);
      const label = (name) => name.split(", ").filter((_, k) => varying[k] ?? true).join(", ");
      const category = typeof readX(points[0]) === "string";
      return site.chart(place, {
        label: `${yTitle} by ${xTitle}`, x: { title: xTitle, type: category ? "category" : "log", ...(category ? {} : ticks(points.map(readX))) }, y: { title: yTitle, rangemode: "tozero" },
        traces: [...series].sort(([a], [b]) => a.localeCompare(b)).map(([name, found], i) => {
          const order = [...found].sort((a, b) => (category ? String(readX(a)).localeCompare(String(readX(b))) : readX(a) - readX(b)));
          return { x: order.map((row) => (category ? site.plain(readX(row)) : readX(row))), y: order.map((row) => row[state.y] / unit), mode: category ? "markers" : "lines+markers", name: site.name(label(name)), hoverinfo: "text",
            text: order.map((row) => `<b>${site.plain(row.backbone)}</b>, ${row.measure}<br>${yTitle} ${show(row[state.y])}${row.error == null ? "" : ` (standard error of the latency ${format.percent(row.error)} %)`}<br>${site.plain(`${row.device}, ${row.size}, batch ${row.batch}, ${row.shown_precision}`)}${row.shared ? "<br>other processes used the device" : ""}`),
            line: { color: site.look(i).colour, dash: site.look(i).dash }, marker: { color: site.look(i).colour, symbol: site.look(i).symbol, size: 8 } };
        }),
        columns: ["Backbone", xTitle, yTitle, "Device", "Size", "Batch", "Precision"],
        rows: points.map((row) => [row.backbone, String(readX(row)), show(row[state.y]), row.device, row.size, String(row.batch), row.shown_precision]),
      });
    };
    const refresh = () => fields.replaceChildren(...FILTERS.flatMap(([field, title, read]) => {
      const values = [...new Set(rows.map(read))].sort((a, b) => String(a).localeCompare(String(b), "en", { numeric: true }));
      if (values.length < 2) return [];
      return [site.select(title, [["", "all"], ...values.map((value) => [value, value])], state.filters[field] ?? "", (value) => { state.filters[field] = value; draw(); })];
    }));
    site.add(body,
      h("p", {}, "Cells of ", h("code", {}, "profile"), " were measured alone, with random images. Values of runs were measured while they trained and were scored. Compare only the same device and conditions."),
      h("div", { class: "filters" },
        site.select("Across", Object.entries(AXES).map(([key, [title]]) => [key, title]), state.x, (value) => { state.x = value; reset(); refresh(); draw(); }),
        site.select("Value", Object.entries(VALUES).map(([key, [title]]) => [key, title]), state.y, (value) => { state.y = value; draw(); })),
      fields, place);
    reset();
    refresh();
    await draw();
    table = await site.table(body, "Measurements", [
      site.text("Backbone", "backbone", { frozen: true }), site.text("Step", "measure"), site.text("Device", "device"), site.text("Size", "size"),
      site.number("Batch", "batch", (value) => String(value ?? format.NONE)), site.text("Precision", "shown_precision"),
      site.number("Threads", "threads", (value) => String(value ?? format.NONE)),
      site.number("Images/s", "images_per_second", (value, row) => format.rate(value) + (row.shared ? " (shared)" : "")),
      site.number("Latency (ms)", "latency", format.rate), site.number("Error (%)", "error", format.percent), site.number("Memory (GiB)", "memory", format.gibibytes),
      site.number("Params (M)", "parameters", format.millions), site.number("Params at test (M)", "parameters_inference", format.millions), site.number("GFLOPs", "flops", format.giga),
      site.text("Record", "run", { formatter: (cell) => site.runLink(cell.getValue()) }),
    ], chosen());
  });
})();
