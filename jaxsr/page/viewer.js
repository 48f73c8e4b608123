"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

function fill(select, labels) {
  select.replaceChildren(...labels.map((label, i) => new Option(label, i)));
}

// What a key does to a value in [low, high]; undefined for keys that are not a slider's.
function moved(event, value, low, high, step) {
  const large = Math.max(1, Math.round((high - low) / 10 / step));
  const steps = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -large, PageUp: large};
  if (event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (event.key === "Home") return low;
  if (event.key === "End") return high;
  if (!(event.key in steps)) return undefined;
  return clamp(value + steps[event.key] * step * (event.shiftKey ? 10 : 1), low, high);
}

function viewer() {
  const stage = byId("stage"), divider = byId("divider");
  const group = byId("group"), mode = byId("mode");
  const sides = ["left", "right"].map((side) => ({
    select: byId(side), image: byId(`image-${side}`), caption: byId(`caption-${side}`), side,
  }));
  // Both images show the same part of the scene: (x, y), from 0 to 1, lies in the middle.
  const view = {at: 50, zoom: 1, x: 0.5, y: 0.5};
  let scene;

  function draw() {
    const half = 0.5 / view.zoom;
    view.x = clamp(view.x, half, 1 - half);
    view.y = clamp(view.y, half, 1 - half);
    const shift = (part) => `${(0.5 - part * view.zoom) * 100}%`;
    const width = across() * view.zoom;
    for (const {image} of sides) {
      image.style.transform = `translate(${shift(view.x)}, ${shift(view.y)}) scale(${view.zoom})`;
      image.classList.toggle("enlarged", width > image.naturalWidth);
    }
    stage.classList.toggle("zoomed", view.zoom > 1);
    stage.style.setProperty("--at", view.at / 100);
    divider.setAttribute("aria-valuenow", Math.round(view.at));
    divider.setAttribute("aria-valuetext", `${Math.round(view.at)} % ${scene.pictures[sides[0].select.value].label}`);
    byId("zoom").value = `${Math.round(100 * view.zoom / actual())} %`;
    // A disabled button would lose the focus.
    const idle = {out: view.zoom <= 1, in: view.zoom >= most(), whole: view.zoom <= 1, actual: actual() <= 1};
    for (const [name, does] of Object.entries(idle)) byId(name).setAttribute("aria-disabled", does);
  }

  // Of the screen's pixels, as many as the whole image is shown on.
  const across = () => Math.max(1, byId("pane-left").clientWidth) * devicePixelRatio;

  // The zoom at which a pixel of the image is one of the screen; below 1 the whole is larger.
  const actual = () => scene.width / across();

  // So far that a pixel of the image is 16 of the screen, and at least eight times.
  const most = () => Math.max(8, 16 * actual());

  // The part of the scene under a point of the screen.
  function under(clientX, clientY) {
    const panes = sides.map(({side}) => byId(`pane-${side}`).getBoundingClientRect());
    const box = mode.value === "beside" && clientX >= panes[1].left ? panes[1] : panes[0];
    const u = (clientX - box.left) / box.width - 0.5, v = (clientY - box.top) / box.height - 0.5;
    return {u, v, x: view.x + u / view.zoom, y: view.y + v / view.zoom};
  }

  // Zoom by a factor; what lies at a point of the screen, or in the middle, stays there.
  function zoom(factor, point = {u: 0, v: 0, x: view.x, y: view.y}) {
    view.zoom = clamp(view.zoom * factor, 1, most());
    view.x = point.x - point.u / view.zoom;
    view.y = point.y - point.v / view.zoom;
    draw();
  }

  const showActual = () => actual() > 1 && zoom(actual() / view.zoom);

  function swap() {
    const [left, right] = sides.map(({select}) => select.value);
    sides[0].select.value = right;
    sides[1].select.value = left;
    choose();
  }

  function slide(clientX) {
    const box = stage.getBoundingClientRect();
    view.at = clamp(100 * (clientX - box.left) / box.width, 0, 100);
    draw();
  }

  function choose() {
    for (const {select, image, caption, side} of sides) {
      const picture = scene.pictures[select.value];
      image.src = data.images[picture.image];
      image.alt = `${scene.name}, ${picture.label}`;
      const figures = caption.children;
      figures[0].textContent = picture.label;
      figures[1].textContent = picture.caption;
      byId(`pane-${side}`).title = picture.label;
    }
    draw();
  }

  function show() {
    // Another scene of the same kind keeps the chosen pair.
    const kept = sides.map(({select}) => scene && scene.pictures[select.value].label);
    scene = data.groups[group.value];
    const labels = scene.pictures.map((picture) => picture.label);
    sides.forEach(({select, side}, i) => {
      fill(select, labels);
      select.value = labels.includes(kept[i]) ? labels.indexOf(kept[i]) : scene[side];
    });
    stage.style.setProperty("--shape", scene.width / scene.height);
    Object.assign(view, {zoom: 1, x: 0.5, y: 0.5});
    choose();
  }

  const fingers = new Map();
  let apart = 0;
  const distance = ([a, b]) => Math.hypot(a.x - b.x, a.y - b.y);

  stage.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const onDivider = event.target === divider;
    fingers.set(event.pointerId, {x: event.clientX, y: event.clientY, onDivider});
    apart = fingers.size === 2 ? distance([...fingers.values()]) : 0;
    stage.setPointerCapture(event.pointerId);
    stage.classList.add("held");
    if (onDivider) divider.focus({focusVisible: false});
    else if (view.zoom === 1 && fingers.size === 1 && mode.value === "slider") slide(event.clientX);
  });
  stage.addEventListener("pointermove", (event) => {
    const finger = fingers.get(event.pointerId);
    if (!finger) return;
    const before = {x: finger.x, y: finger.y};
    Object.assign(finger, {x: event.clientX, y: event.clientY});
    const all = [...fingers.values()];
    if (all.length === 2) {
      const now = distance(all);
      zoom(now / apart, under((all[0].x + all[1].x) / 2, (all[0].y + all[1].y) / 2));
      apart = now;
    } else if (finger.onDivider || (view.zoom === 1 && mode.value === "slider")) {
      slide(event.clientX);
    } else if (all.length === 1) {
      const from = under(before.x, before.y), to = under(event.clientX, event.clientY);
      view.x -= (to.u - from.u) / view.zoom;
      view.y -= (to.v - from.v) / view.zoom;
      draw();
    }
  });
  for (const end of ["pointerup", "pointercancel"]) {
    stage.addEventListener(end, (event) => {
      fingers.delete(event.pointerId);
      apart = fingers.size === 2 ? distance([...fingers.values()]) : 0;
      stage.classList.toggle("held", fingers.size > 0);
    });
  }
  stage.addEventListener("touchmove", (event) => event.touches.length > 1 && event.preventDefault(),
    {passive: false}); // two fingers zoom the images, not the page
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the page scrolls
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), under(event.clientX, event.clientY));
  }, {passive: false});

  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [left, up] = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}
      [event.key] || [0, 0];
    const at = event.target === divider ? moved(event, view.at, 0, 100, 1) : undefined;
    if (at !== undefined) {
      view.at = at;
      draw();
    } else if (event.key === "+" || event.key === "=") zoom(2);
    else if (event.key === "-") zoom(0.5);
    else if (event.key === "0") zoom(0);
    else if (event.key === "1") showActual();
    else if (event.key === "s") swap();
    else if ((left || up) && event.target === stage && view.zoom > 1) {
      view.x += 0.1 * left / view.zoom;
      view.y += 0.1 * up / view.zoom;
      draw();
    } else return;
    event.preventDefault();
  });

  byId("in").addEventListener("click", () => zoom(2));
  byId("out").addEventListener("click", () => zoom(0.5));
  byId("whole").addEventListener("click", () => zoom(0));
  byId("actual").addEventListener("click", showActual);
  byId("swap").addEventListener("click", swap);
  group.addEventListener("change", show);
  mode.addEventListener("change", () => {
    stage.className = mode.value;
    draw();
  });
  for (const {select, image} of sides) {
    select.addEventListener("change", choose);
    image.addEventListener("load", draw);
  }
  new ResizeObserver(draw).observe(stage);
  fill(group, data.groups.map((each) => each.name));
  group.parentElement.hidden = data.groups.length === 1;
  show();
}

if (data.groups.length) viewer();

let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not([open])")];
  for (const each of unfolded) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of unfolded) each.open = false;
});
