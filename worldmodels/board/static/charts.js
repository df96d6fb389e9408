"use strict";
// Line charts as SVG. Colours come from the style sheet, so they follow the scheme and print.

const Charts = (() => {
  const HEIGHT = 230, LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 34;

  function svg(tag, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function number(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
    return String(Number(value.toPrecision(4)));
  }

  // Round numbers between two, about `count` of them: steps of 1, 2 or 5 times a power of ten.
  function ticks(low, high, count, whole) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    let step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough * 0.999);
    if (whole) step = Math.max(1, Math.round(step));
    const found = [];
    for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
    return found;
  }

  function decades(low, high) {
    const found = [], spread = Math.log10(high / low);
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const m of spread > 3 ? [1] : spread > 1.2 ? [1, 3] : [1, 2, 3, 5, 7]) {
        const value = m * 10 ** power;
        if (value >= low * 0.999 && value <= high * 1.001) found.push(value);
      }
    return found;
  }

  function range(values, log) {
    let low = Infinity, high = -Infinity;
    for (const v of values) { if (v < low) low = v; if (v > high) high = v; }
    if (log) return low === high ? [low / 2, high * 2] : [low * (low / high) ** 0.03, high * (high / low) ** 0.03];
    const pad = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.05;
    return [low - pad, high + pad];
  }

  function usable(lines, log) {
    return lines.map(line => {
      const points = [];
      line.x.forEach((x, i) => {
        const y = line.y[i];
        if (x !== null && y !== null && y !== undefined && !(log && y <= 0)) points.push([x, y]);
      });
      return {...line, points};
    }).filter(line => line.points.length);
  }

  function axes(picture, width, scale, panel, log) {
    const {x, y, xs, ys} = scale, bottom = HEIGHT - BOTTOM;
    let values = log ? decades(...ys) : [];
    if (values.length < 2) values = ticks(...ys, 5, false).filter(v => !log || v > 0);
    for (const v of values) {
      picture.append(svg("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(v), y2: y(v)}));
      picture.append(svg("text", {class: "tick", x: LEFT - 6, y: y(v) + 4, "text-anchor": "end"}, number(v)));
    }
    for (const v of ticks(...xs, Math.max(2, Math.min(6, width / 90)), true)) {
      const end = x(v) > width - 34;
      picture.append(svg("text", {class: "tick", x: end ? width - RIGHT : x(v), y: bottom + 16, "text-anchor": end ? "end" : "middle"}, number(v)));
    }
    picture.append(svg("line", {class: "axis", x1: LEFT, x2: width - RIGHT, y1: bottom, y2: bottom}));
    picture.append(svg("text", {class: "name", x: width - RIGHT, y: HEIGHT - 3, "text-anchor": "end"}, panel.x));
  }

  // Draw the panel's lines [{name, colour, mark, x, y}] into a figure with an empty .plot. Return false without points.
  function draw(figure, panel, lines, log) {
    const plot = figure.querySelector(".plot"), shown = usable(lines, log);
    plot.replaceChildren();
    if (!shown.length) return false;
    const width = Math.max(260, Math.round(plot.clientWidth || 460));
    const xs = (() => {
      const all = shown.flatMap(line => line.points.map(p => p[0])), low = Math.min(...all), high = Math.max(...all);
      return low === high ? [low - 1, high + 1] : [low, high];
    })();
    const ys = range(shown.flatMap(line => line.points.map(p => p[1])), log), map = log ? Math.log : v => v;
    const x = v => LEFT + (v - xs[0]) / (xs[1] - xs[0]) * (width - LEFT - RIGHT);
    const y = v => HEIGHT - BOTTOM - (map(v) - map(ys[0])) / (map(ys[1]) - map(ys[0])) * (HEIGHT - TOP - BOTTOM);
    const label = shown.map(l => `${l.name} ends at ${number(l.points.at(-1)[1])}`).join("; ");
    const picture = svg("svg", {viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": `${panel.title}: ${label}`, tabindex: 0});
    axes(picture, width, {x, y, xs, ys}, panel, log);
    for (const line of shown) {
      const [first, value] = line.points[0], lone = line.mark !== "points" && line.points.length === 1;
      // A line of one point is a dash, so that it differs from points.
      const path = lone ? `M${x(first) - 9} ${y(value)}h18` : line.points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("");
      picture.append(svg("path", {class: `line ${line.mark} ${line.colour}`, d: path}));
      if (line.mark === "points")
        for (const [a, b] of line.points) picture.append(svg("circle", {class: `dot ${line.colour}`, cx: x(a), cy: y(b), r: line.points.length > 30 ? 1.8 : 3}));
    }
    plot.append(picture);
    hover(plot, picture, shown, {x, xs, width, y, axis: panel.x});
    return true;
  }

  function nearest(points, value) {
    let low = 0, high = points.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (points[middle][0] < value) low = middle; else high = middle;
    }
    return value - points[low][0] < points[high][0] - value ? points[low] : points[high];
  }

  // Show the values nearest to the pointer, or step through them with the arrow keys.
  function hover(plot, picture, lines, {x, xs, width, y, axis}) {
    const rule = svg("line", {class: "rule", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden"});
    const dots = lines.map(line => svg("circle", {class: `dot ${line.colour}`, r: 4, visibility: "hidden"}));
    const tip = document.createElement("div");
    tip.className = "tip";
    tip.hidden = true;
    picture.append(rule, ...dots);
    plot.append(tip);
    const steps = [...new Set(lines.flatMap(line => line.points.map(p => p[0])))].sort((a, b) => a - b);
    let at = steps.length - 1;

    function show(value) {
      const found = lines.map(line => nearest(line.points, value));
      const best = found.reduce((a, b) => Math.abs(b[0] - value) < Math.abs(a[0] - value) ? b : a)[0];
      at = Math.max(0, steps.indexOf(best));
      rule.setAttribute("x1", x(best)); rule.setAttribute("x2", x(best)); rule.setAttribute("visibility", "visible");
      tip.replaceChildren(table(best, found));
      found.forEach((p, i) => {
        dots[i].setAttribute("cx", x(p[0]));
        dots[i].setAttribute("cy", y(p[1]));
        dots[i].setAttribute("visibility", p[0] === best ? "visible" : "hidden");
      });
      tip.hidden = false;
      const place = x(best) * plot.clientWidth / width, room = plot.clientWidth - tip.offsetWidth;
      tip.style.left = `${Math.max(0, Math.min(room, place > plot.clientWidth / 2 ? place - tip.offsetWidth - 10 : place + 10))}px`;
    }
    // A row per run, a column per line; a value at another x than the pointer's is left out.
    function table(value, found) {
      const cell = (tag, text, className) => Object.assign(document.createElement(tag), {textContent: text, className: className || ""});
      const columns = [...new Set(lines.map(line => line.short))], runs = [...new Set(lines.map(line => line.run))];
      const head = document.createElement("tr");
      head.append(cell("th", `${axis} ${number(value)}`), ...columns.map(name => cell("th", name)));
      const rows = runs.map(run => {
        const row = document.createElement("tr"), own = i => lines[i].run === run;
        const name = cell("th", run);
        name.prepend(cell("i", "", `chip ${lines.find(line => line.run === run).colour}`));
        row.append(name, ...columns.map(column => {
          const i = lines.findIndex((line, i) => own(i) && line.short === column);
          return cell("td", i >= 0 && found[i][0] === value ? number(found[i][1]) : "–");
        }));
        return row;
      });
      const element = document.createElement("table");
      element.append(head, ...rows);
      return element;
    }
    function hide() {
      tip.hidden = true;
      for (const each of [rule, ...dots]) each.setAttribute("visibility", "hidden");
    }
    const value = event => {
      const box = picture.getBoundingClientRect();
      return xs[0] + ((event.clientX - box.left) * width / box.width - LEFT) / (width - LEFT - RIGHT) * (xs[1] - xs[0]);
    };
    picture.addEventListener("pointermove", event => show(value(event)));
    picture.addEventListener("pointerdown", event => show(value(event)));
    picture.addEventListener("pointerleave", hide);
    picture.addEventListener("blur", hide);
    picture.addEventListener("keydown", event => {
      const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!move) return;
      event.preventDefault();
      show(steps[Math.max(0, Math.min(steps.length - 1, at + move))]);
    });
  }

  return {draw, number};
})();
