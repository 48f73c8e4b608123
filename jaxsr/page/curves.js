
function element(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function labelled(words, control) {
  const label = document.createElement("label");
  label.append(`${words} `, control);
  return label;
}

// About `count` round numbers in [low, high].
function ticks(low, high, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((each) => each >= rough) || power;
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) found.push(i * step);
  return found;
}

// Numbers in as few digits as tell them apart, but two at least.
function apart(values) {
  for (let digits = 2; ; digits++) {
    const written = values.map((value) => String(Number(value.toPrecision(digits))));
    if (digits === 15 || new Set(written).size === values.length) return written;
  }
}

const short = (value) => String(Number(value.toPrecision(6)));
const read = (value, name) => name.includes("dB") ? value.toFixed(3) : String(Number(value.toPrecision(4)));

// One plot of the curves with the same count, a quantity at a time.
function plot(count, curves) {
  const root = document.createElement("div"), bar = document.createElement("div");
  const quantity = document.createElement("select"), scene = document.createElement("select");
  const svg = element("svg", {tabindex: 0, role: "slider"});
  const legend = document.createElement("ul");
  root.className = "plot";
  bar.className = "bar";
  legend.className = "legend";
  const scenes = [...new Set(curves.map((curve) => curve.scene))];
  if (scenes.length > 1) bar.append(labelled("Image", scene));
  bar.append(labelled("Quantity", quantity));
  root.append(bar, svg, legend);
  const names = [...new Set(curves.flatMap((curve) => Object.keys(curve.columns)))];
  fill(quantity, names);
  fill(scene, ["all", ...scenes]);
  if (curves.length > 8) scene.value = 1;

  const ends = curves.flatMap((c) => Object.values(c.columns).map((v) => v.length * c.every));
  const length = Math.max(1, ...ends), step = Math.max(...curves.map((curve) => curve.every));
  const last = Math.max(step, step * Math.floor(length / step));  // where all curves may have values
  const left = 64, right = 12, top = 10, bottom = 42, height = 320;
  let at = last, width = 0, shown = [], levels = [], cursor, dots, x, y;
  const style = (colour, dash) => `s${colour % 8} d${dash % 4}`;

  // The vertical axis covers what comes after the first tenth, so that the start squashes nothing.
  function range(scale) {
    const settled = shown.flatMap(({values}) => values.slice(Math.floor(values.length / 10)))
      .filter((value) => value !== null).map(scale).filter(Number.isFinite).sort((a, b) => a - b);
    const flat = levels.map(([, value]) => scale(value));
    if (!settled.length) return [0, 1];
    const low = Math.min(settled[Math.floor(0.005 * settled.length)], ...flat), high = Math.max(settled.at(-1), ...flat);
    const space = 0.06 * (high - low) || 0.5;
    return [low - space, high + space];
  }

  function draw() {
    width = Math.max(240, root.clientWidth);
    const name = names[quantity.value], logarithmic = name.includes("log"), chosen = scenes[scene.value - 1];
    const scale = logarithmic ? Math.log10 : (value) => value;
    shown = curves.filter((curve) => curve.columns[name] && (!chosen || curve.scene === chosen));
    // Of several images each has a colour, and its runs differ by their dashes. Of one image
    // neighbouring curves do, too: not everyone can tell their colours apart.
    const seen = new Map(), several = new Set(shown.map((curve) => curve.scene)).size > 1;
    shown = shown.map((curve, i) => {
      const place = scenes.indexOf(curve.scene), nth = seen.get(curve.scene) ?? 0;
      seen.set(curve.scene, nth + 1);
      const look = several ? style(place, nth + Math.floor(place / 8)) : style(i, i + Math.floor(i / 8));
      const own = several && !curve.name.includes(curve.scene) ? `${curve.scene}: ${curve.name}` : curve.name;
      return {name: own, every: curve.every, values: curve.columns[name], levels: curve.levels[name] || {}, look};
    });
    // A level that all share is drawn once.
    levels = several ? [] : [...new Map(shown.flatMap((curve) => Object.entries(curve.levels)).map((pair) => [String(pair), pair])).values()];
    svg.setAttribute("aria-label", `${name} at one ${count}`);
    const [low, high] = range(scale);
    x = (i) => left + (width - left - right) * i / length;
    y = (value) => top + (height - top - bottom) * (high - scale(value)) / (high - low);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const clip = element("clipPath", {id: `clip-${count}`}, element("rect",
      {x: left - 5, y: top, width: width - left - right + 10, height: height - top - bottom}));  // whole dots
    const parts = [clip];
    const marks = ticks(low, high, 5).map((tick) => logarithmic ? 10 ** tick : tick);
    const written = logarithmic ? apart(marks) : marks.map(short);
    for (const [n, value] of marks.entries()) {
      const level = y(value);
      parts.push(element("line", {class: "grid", x1: left, x2: width - right, y1: level, y2: level}));
      parts.push(element("text", {x: left - 8, y: level + 4, "text-anchor": "end"}, written[n]));
    }
    for (const tick of ticks(0, length, width < 500 ? 3 : 6)) {
      if (!Number.isInteger(tick)) continue;
      const anchor = x(tick) > width - right - 16 ? "end" : "middle";
      parts.push(element("text", {x: x(tick), y: height - bottom + 18, "text-anchor": anchor}, String(tick)));
    }
    parts.push(element("text", {x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle"}, count));
    const drawn = element("g", {"clip-path": `url(#clip-${count})`});
    for (const [, value] of levels) {
      drawn.append(element("line", {class: "level", x1: left, x2: width - right, y1: y(value), y2: y(value)}));
    }
    for (const {values, every, look} of shown) {
      let line = "", pen = "M";
      values.forEach((value, n) => {
        const level = value === null ? NaN : y(value);
        if (Number.isFinite(level)) line += `${pen}${x((n + 1) * every).toFixed(1)} ${level.toFixed(1)}`;
        pen = Number.isFinite(level) ? "L" : "M";
      });
      drawn.append(element("path", {d: line, class: look}));
    }
    cursor = element("line", {class: "cursor", y1: top, y2: height - bottom});
    dots = shown.map(({look}) => element("circle", {r: 4, class: look}));
    drawn.append(cursor, ...dots);
    svg.replaceChildren(...parts, drawn);
    const entry = (words, look, value = "") => {
      const item = document.createElement("li"), figure = document.createElement("b");
      const swatch = element("svg", {"aria-hidden": "true"},
        element("line", {x1: 0, x2: 28, y1: 6, y2: 6, "stroke-width": 3, class: look}));
      figure.append(value);
      item.append(swatch, words, figure);
      return item;
    };
    legend.replaceChildren(document.createElement("li"), ...shown.map((curve) => entry(curve.name, curve.look)),
      ...levels.map(([words, value]) => entry(words, "level", read(value, name))));
    point();
  }

  // The values at the cursor, in the legend and for screen readers.
  function point() {
    cursor.setAttribute("x1", x(at));
    cursor.setAttribute("x2", x(at));
    legend.firstChild.textContent = `${count} ${at}`;
    const told = shown.map(({name, values, every}, n) => {
      const value = values[at / every - 1], level = typeof value === "number" ? y(value) : NaN;
      const text = typeof value === "number" ? read(value, names[quantity.value]) : "–";
      dots[n].toggleAttribute("hidden", !Number.isFinite(level));
      if (Number.isFinite(level)) {
        dots[n].setAttribute("cx", x(at));
        dots[n].setAttribute("cy", level);
      }
      legend.children[n + 1].lastChild.textContent = text;
      return `${name} ${text}`;
    });
    svg.setAttribute("aria-valuemin", step);
    svg.setAttribute("aria-valuemax", last);
    svg.setAttribute("aria-valuenow", at);
    svg.setAttribute("aria-valuetext", `${count} ${at}: ${told.join(", ")}`);
  }

  function follow(event) {
    const box = svg.getBoundingClientRect(), inside = (event.clientX - box.left) * width / box.width;
    const part = (inside - left) / (width - left - right);
    at = clamp(step * Math.round(part * length / step), step, last);
    point();
  }
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  svg.addEventListener("keydown", (event) => {
    const to = moved(event, at, step, last, step);
    if (to === undefined) return;
    event.preventDefault();
    at = to;
    point();
  });
  for (const select of [quantity, scene]) select.addEventListener("change", draw);
  byId("curves").append(root);
  new ResizeObserver(() => root.clientWidth !== width && draw()).observe(root);
  draw();
}

for (const count of new Set(data.curves.map((curve) => curve.count))) {
  plot(count, data.curves.filter((curve) => curve.count === count));
}
