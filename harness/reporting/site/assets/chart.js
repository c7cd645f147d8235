"use strict";
// Plots by Plotly, in the colours of the theme, each with its values as a table.
site.colours = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f7f7f"];
site.symbols = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "hexagon"];
site.dashes = ["solid", "dash", "dot", "dashdot"];
site.look = (i) => ({ colour: site.colours[i % 8], symbol: site.symbols[i % 8], dash: site.dashes[Math.floor(i / 8) % 4] });
site.plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Ticks of a logarithmic axis at 1, 2 and 5 times powers of ten.
const decades = (values) => {
  const [low, high] = [Math.min(...values) / 2, Math.max(...values) * 2];
  const exponents = Array.from({ length: 30 }, (_, i) => i - 12);
  const found = exponents.flatMap((exponent) => [1, 2, 5].map((digit) => Number(`${digit}e${exponent}`))).filter((tick) => tick >= low && tick <= high);
  const kept = found.length > 12 ? found.filter((tick) => /^1/.test(tick.toExponential())) : found;
  return { tickvals: kept, ticktext: kept.map((tick) => tick.toLocaleString("en", { maximumSignificantDigits: 3 })) };
};

// Names of a legend: the middle of long ones is left out; hovering shows all.
site.name = (text) => site.plain(text.length > 34 ? `${text.slice(0, 20)}…${text.slice(-13)}` : text);

site.chart = async (parent, { label, x, y, traces, columns, rows, shapes = [], click }) => {
  const holder = site.h("div", { class: "chart", role: "group", "aria-label": `${label}. The values are in the table below.` });
  const figure = site.h("figure", {}, holder,
    site.h("details", {}, site.h("summary", {}, "Values of the plot as a table"), site.simple(label, columns, rows)));
  parent.append(figure);
  await site.script("vendor/plotly.min.js");
  const draw = () => {
    if (!holder.isConnected) return site.onTheme.delete(draw);
    const style = getComputedStyle(document.documentElement);
    const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
    const narrow = holder.clientWidth < 600;
    const axis = (given, values) => ({ ...(given.type === "log" && !given.tickvals ? decades(values) : {}), gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true, ...given, title: { text: given.title, standoff: 8 } });
    return Plotly.react(holder, traces, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, family: "system-ui, sans-serif", size: 13 },
      margin: { l: 50, r: 10, t: 36, b: 45 }, hovermode: "closest",
      hoverlabel: { align: "left", namelength: -1 },
      legend: narrow ? { orientation: "h", y: -0.25 } : { x: 1.02, y: 1 },
      height: narrow ? 420 + 22 * traces.length : 480, xaxis: axis(x, traces.flatMap((trace) => trace.x)), yaxis: axis(y, []), shapes,
    }, { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  };
  site.onTheme.add(draw);
  await draw();
  if (click) holder.on("plotly_click", (event) => click(event.points[0]));
  return holder;
};
