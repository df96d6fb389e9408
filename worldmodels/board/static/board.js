"use strict";
// Shows the state that the page contains, and asks for newer ones while the page is visible. Stored text only ever
// becomes text: elements are made here, and their content is set as textContent.

(() => {
  const MOST = 8;
  const $ = id => document.getElementById(id);
  let state = JSON.parse($("state").textContent);
  const live = state.after !== null;
  let chosen = new URLSearchParams(location.hash.slice(1)).getAll("run");
  const drawn = new Map(), films = new Map(), logarithmic = new Set();
  let timer = 0, fresh = true;

  function el(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (name === "class") element.className = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== false && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter(child => child !== null && child !== ""));
    return element;
  }

  // Rebuild an element only if what it shows has changed; keep the focus where it was.
  function renew(parent, content, build) {
    const text = JSON.stringify(content);
    if (drawn.get(parent) === text) return;
    drawn.set(parent, text);
    const focused = document.activeElement && document.activeElement.id;
    parent.replaceChildren(...build());
    if (focused && $(focused)) $(focused).focus();
  }

  function moment(unix) {
    if (!unix) return "";
    const then = new Date(unix * 1000), clock = then.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit", hour12: false});
    if (then.toDateString() === new Date().toDateString()) return clock;
    const year = then.getFullYear() === new Date().getFullYear() ? {} : {year: "numeric"};
    return `${then.toLocaleDateString("en-GB", {day: "numeric", month: "short", ...year})} ${clock}`;
  }

  function duration(seconds) {
    const s = Math.round(seconds);
    if (s < 60) return `${s} s`;
    if (s < 3600) return `${Math.floor(s / 60)} min`;
    return `${Math.floor(s / 3600)} h ${String(Math.floor(s % 3600 / 60)).padStart(2, "0")} min`;
  }

  function size(bytes) {
    for (const unit of ["B", "kB", "MB"]) { if (bytes < 1000) return `${bytes < 10 && unit !== "B" ? bytes.toFixed(1) : Math.round(bytes)} ${unit}`; bytes /= 1000; }
    return `${bytes.toFixed(1)} GB`;
  }

  const money = value => Number(value.toPrecision(2)).toLocaleString("en", {maximumSignificantDigits: 2});
  const score = found => found ? `${found.mean.toFixed(0)} ± ${found.std.toFixed(0)}` : "";
  const slug = state => state.replace(" ", "-");
  const colour = id => `c${chosen.indexOf(id) % MOST}`;
  const several = run => state.runs.filter(row => row.run === run).length > 1;
  const title = row => row.iteration > 1 || several(row.run) ? `${row.run} · iteration ${row.iteration}` : row.run;

  function choose(id, wanted) {
    fresh = false;
    chosen = wanted ? [...chosen.filter(other => other !== id), id].slice(-MOST) : chosen.filter(other => other !== id);
    history.replaceState(null, "", `#${new URLSearchParams(chosen.map(run => ["run", run]))}`);
    show();
    poll();
  }

  function strip(row) {
    const words = row.stages.map(s => `${s.stage} ${s.state}`).join(", ");
    return el("span", {class: "strip", role: "img", "aria-label": words},
      ...row.stages.map(s => el("i", {class: slug(s.state), title: `${s.stage}: ${s.state}`})));
  }

  function listed(row) {
    const picked = chosen.includes(row.id), id = `pick-${row.id}`;
    return el("li", {class: picked ? "picked" : ""},
      el("label", {},
        el("input", {type: "checkbox", id, checked: picked ? "" : null, onchange: event => choose(row.id, event.target.checked)}),
        el("span", {class: "title"}, picked ? el("i", {class: `chip ${colour(row.id)}`}) : null, title(row)),
        el("span", {class: "score"}, score(row.score)),
        strip(row),
        el("span", {class: "words"}, row.words),
        el("time", {}, moment(row.latest))));
  }

  function stage(row, more) {
    const facts = [];
    if (more) {
      if (more.seconds !== null) facts.push(`${row.state === "at work" ? "for" : "took"} ${duration(more.seconds)}`);
      if (more.workers.length) facts.push(`${more.workers.length} worker${more.workers.length > 1 ? "s" : ""} on ${[...new Set(more.workers.map(w => w.host || "an unknown host"))].join(", ")}`);
      else if (more.host) facts.push(`${more.count > 1 ? `${more.count} workers, the last ` : ""}on ${more.host}`);
      if (more.cpu) facts.push(more.cpu);
      if (more.bytes !== null) facts.push(size(more.bytes));
      if (more.cost !== null) facts.push(`cost ${money(more.cost)}`);
      if (more.failed) facts.push(`${more.failed} shards could not be made`);
      if (more.ended) facts.push(`ended early: ${more.ended}`);
      if (more.digest) facts.push(more.digest);
    }
    return el("li", {},
      el("span", {class: "stage"}, row.stage),
      el("span", {class: `state ${slug(row.state)}`}, row.state),
      el("time", {}, row.state === "waits" ? row.why : row.since ? `${row.state === "committed" ? "at" : "since"} ${moment(row.since)}` : ""),
      row.why && row.state !== "waits" ? el("p", {class: "why"}, row.why) : null,
      facts.length ? el("p", {class: "facts"}, facts.join(" · ")) : null);
  }

  function workers(more) {
    const found = more.stages.flatMap(s => s.workers);
    if (found.length < 2) return null;
    return el("details", {}, el("summary", {}, `${found.length} workers`),
      el("ul", {class: "workers"}, ...found.map(w => el("li", {}, `${w.worker === null ? "" : `worker ${w.worker} `}on ${w.host || "an unknown host"}, since ${moment(w.since)}, last heartbeat ${moment(w.beat)}`))));
  }

  function film(entry, row) {
    const key = `${row.id} ${entry.address}`;
    if (!films.has(key))
      films.set(key, el("figure", {}, el("img", {src: entry.address, alt: entry.words, loading: "lazy", onerror: event => { event.target.parentElement.hidden = true; }}), el("figcaption", {}, entry.words)));
    return films.get(key);
  }

  function detailed(row) {
    const more = state.details[row.id];
    const facts = [];
    if (row.score) facts.push(`score ${score(row.score)} over ${row.score.tracks} tracks, 95 % interval of the mean ${row.score.interval.map(v => v.toFixed(0)).join(" to ")}, ${row.score.laps} laps completed`);
    if (more && more.cost !== null) facts.push(`cost so far about ${money(more.cost)}, at the given prices`);
    if (row.trouble) facts.push(row.trouble);
    return el("article", {},
      el("h2", {}, el("i", {class: `chip ${colour(row.id)}`}), title(row)),
      facts.length ? el("p", {}, facts.join(" · ")) : null,
      el("ul", {class: "stages"}, ...row.stages.map((s, i) => stage(s, more && more.stages[i]))),
      more ? workers(more) : null,
      more ? el("div", {class: "films"}, ...more.films.map(entry => film(entry, row))) : null);
  }

  function lines(panel, rows) {
    return rows.flatMap(row => {
      const table = (state.details[row.id] || {curves: {}}).curves[panel.stage];
      if (!table || !table[panel.x]) return [];
      return panel.lines.filter(line => table[line.column]).map(line => ({
        name: `${title(row)}, ${line.label}`, run: title(row), short: line.short, colour: colour(row.id), mark: line.mark,
        x: table[panel.x], y: table[line.column],
      }));
    });
  }

  function figure(panel) {
    const id = `log-${panel.stage}-${panel.lines[0].column}`;
    const key = panel.lines.length > 1 ? panel.lines.map(line => el("span", {}, el("i", {class: `key ${line.mark}`}), line.label)) : [];
    const log = el("input", {type: "checkbox", id, onchange: event => {
      logarithmic[event.target.checked ? "add" : "delete"](panel.title);
      curves(true);
    }});
    return el("figure", {"data-panel": panel.title},
      el("figcaption", {}, el("b", {}, panel.title), el("label", {}, log, "log")),
      el("div", {class: "plot"}),
      key.length ? el("p", {class: "keys"}, ...key) : null);
  }

  function curves(again) {
    const rows = state.runs.filter(row => chosen.includes(row.id)).sort((a, b) => chosen.indexOf(a.id) - chosen.indexOf(b.id));
    const panels = state.panels.map(panel => [panel, lines(panel, rows)]);
    renew($("curves"), state.panels, () => state.panels.map(figure));
    let any = false;
    panels.forEach(([panel, found], i) => {
      const place = $("curves").children[i], text = JSON.stringify([found, chosen]);
      if (again || drawn.get(place) !== text) {
        drawn.set(place, text);
        place.hidden = !found.length;
        place.hidden = !Charts.draw(place, panel, found, logarithmic.has(panel.title));
        if (place.hidden && logarithmic.has(panel.title)) place.hidden = false;
      }
      any = any || !place.hidden;
    });
    $("curves-title").textContent = any ? "Curves" : chosen.length ? "No curves yet" : "Choose a run";
    renew($("legend"), [rows.map(title), chosen], () => rows.length > 1 ? rows.map(row => el("li", {}, el("i", {class: `chip ${colour(row.id)}`}), title(row))) : []);
    return rows;
  }

  function status() {
    const parts = [];
    if (state.read) parts.push(`read ${new Date(state.read * 1000).toLocaleTimeString([], {hour12: false})}`);
    else parts.push("being read");
    if (!live) parts[0] = `written ${moment(state.read)}`;
    if (live && state.bucket) parts.push(`${state.requests.reads} reads and ${state.requests.lists} listings in the last minute, $${money(state.requests.hour)} an hour`);
    $("status").textContent = parts.join(" · ");
  }

  function fail(text) {
    $("error").hidden = !text;
    $("error").textContent = text;
  }

  function show() {
    if (state.read) chosen = chosen.filter(id => state.runs.some(row => row.id === id));
    if (fresh && !chosen.length && state.runs.length && state.runs[0].read) chosen = [state.runs[0].id];
    fresh = fresh && !chosen.length;
    status();
    renew($("runs"), [state.runs, chosen], () => state.runs.length ? state.runs.map(listed) : [el("li", {class: "none"}, state.read ? "No run is in this store yet." : "")]);
    const rows = curves(false);
    renew($("details"), [rows, rows.map(row => state.details[row.id] || null).map(d => d && {...d, curves: null})], () => rows.map(detailed));
    document.body.dataset.read = state.read || "";
    document.dispatchEvent(new CustomEvent("shown", {detail: state.runs}));
  }

  async function poll() {
    clearTimeout(timer);
    if (!live || document.hidden) return;
    let pause = 5;
    try {
      const answer = await fetch(`state.json?${new URLSearchParams(chosen.map(run => ["run", run]))}`, {cache: "no-cache"});
      if (!answer.ok) throw new Error(`${answer.status}`);
      state = await answer.json();
      pause = chosen.some(id => !state.details[id]) ? Math.min(0.4, state.after) : state.after;
      fail(state.error);
      show();
    } catch (error) {
      fail("The board does not answer. It may have ended; `wm board` starts it again, at a new address.");
    }
    clearTimeout(timer);
    timer = setTimeout(poll, pause * 1000);
  }

  document.addEventListener("visibilitychange", poll);
  window.addEventListener("hashchange", () => { chosen = new URLSearchParams(location.hash.slice(1)).getAll("run"); show(); poll(); });
  new ResizeObserver(() => curves(true)).observe($("curves"));
  show();
  poll();
})();
