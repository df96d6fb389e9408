"use strict";
// Drives on the server: each request says which keys are pressed and how many steps are due, and brings one picture.
// So a slow machine shows fewer pictures of the same steps, and a page that is hidden, closed or paused asks for none.

(() => {
  const PICTURE_STEPS = 2, MOST_STEPS = 10, SIDE = 64;
  const KEYS = {ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down"};
  const NAMES = {
    track: ["V's input", "V's reconstruction", "M's prediction"],
    dream: ["the last real frame", "M's z, decoded by V", "M's expected frame"],
  };
  const $ = id => document.getElementById(`drive-${id}`);
  const box = document.getElementById("drive"), held = $("held"), screen = $("screen");
  const bars = [...box.querySelectorAll(".bar")], views = [...box.querySelectorAll(".views figure")];
  const value = name => box.querySelector(`input[name=${name}]:checked`).value;
  const pressed = new Set();
  let rows = [], going = null, paused = false, wake = () => {};

  function show(element, text) {
    element.hidden = !text;
    element.textContent = text;
  }

  // The form.

  function offer(select, options, before) {
    const text = JSON.stringify(options);
    if (select.dataset.options === text) return;
    select.dataset.options = text;
    select.replaceChildren(...options.map(([id, words]) => Object.assign(document.createElement("option"), {value: id, textContent: words})));
    if (options.some(([id]) => id === before)) select.value = before;
  }

  const committed = (row, stage) => row.stages.some(s => s.stage === stage && s.state === "committed");

  function form() {
    const able = rows.filter(row => committed(row, "vae") && committed(row, "memory"));
    offer($("run"), able.map(row => [row.id, row.iteration > 1 ? `${row.run}, iteration ${row.iteration}` : row.run]), $("run").value);
    const row = able.find(each => each.id === $("run").value);
    const evolved = row && committed(row, "controller");
    offer($("which"), [...(evolved ? [["mean", "mean of the evolution"], ["best", "best candidate"], ["generation", "mean of a generation"]] : []), ["none", "none: arrow keys"]]);
    const numbered = $("which").value === "generation";
    $("number").hidden = !numbered;
    $("generation").disabled = !numbered;
    $("none").hidden = able.length > 0 || rows.some(each => !each.read);
    $("form").hidden = !able.length;
  }

  async function ask(path, body) {
    const answer = await fetch(`drives${path}`, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
    if (answer.ok) return answer;
    const said = answer.headers.get("Content-Type") === "application/json" ? (await answer.json()).error : await answer.text();
    throw new Error(said);
  }

  const reason = error => error instanceof TypeError ? "The board does not answer. It may have ended; `wm board` starts it again, at a new address." : error.message;

  async function start(event) {
    event.preventDefault();
    const row = rows.find(each => each.id === $("run").value), which = $("which").value;
    const controller = {mean: "mean", best: "best", none: null, generation: Number($("generation").value)}[which];
    stop();
    show($("error"), "");
    $("busy").hidden = false;
    $("form").querySelector("button").disabled = true;
    try {
      const drive = await (await ask("", {run: row.run, iteration: row.iteration, controller, track: Number($("track").value)})).json();
      begin({...drive, title: $("run").selectedOptions[0].textContent, controlled: controller !== null});
    } catch (error) {
      show($("error"), reason(error));
    }
    $("busy").hidden = true;
    $("form").querySelector("button").disabled = false;
  }

  // The drive.

  function begin(drive) {
    going = {...drive, taken: performance.now(), facts: null, counted: [], speed: 1};
    const c = box.querySelector("input[value=c]");
    c.disabled = !drive.controlled;
    if (!drive.controlled) box.querySelector("input[value=keys]").checked = true;
    else if (!box.querySelector("input[name=driver]:checked")) c.checked = true;
    box.querySelector("input[value=track]").checked = true;
    $("going").hidden = false;
    pause(false);
    changed();
    screen.focus();
    loop(going);
  }

  function stop() {
    if (going) fetch(`drives/${going.id}`, {method: "DELETE", headers: {"Content-Type": "application/json"}, keepalive: true}).catch(() => {});
    going = null;
    pressed.clear();
    wake();
  }

  function waits() {
    return paused || document.hidden || !box.open || (going.facts && going.facts.ended);
  }

  async function loop(drive) {
    try {
      while (drive === going) {
        if (waits()) {
          await new Promise(resolve => { wake = resolve; });
          drive.taken = performance.now() - PICTURE_STEPS * 1000 / drive.rate;
          drive.counted = [];
          continue;
        }
        const due = (performance.now() - drive.taken) * drive.rate / 1000;
        const steps = Math.max(1, Math.min(MOST_STEPS, Math.round(due)));
        drive.taken += Math.max(steps, due - MOST_STEPS) * 1000 / drive.rate; // a machine that is too slow falls behind
        await picture(drive, steps);
        await new Promise(resolve => setTimeout(resolve, drive.taken + PICTURE_STEPS * 1000 / drive.rate - performance.now()));
      }
    } catch (error) {
      if (drive !== going) return;
      stop();
      show($("error"), reason(error));
    }
  }

  async function picture(drive, steps) {
    const dream = value("world") === "dream", keys = value("driver") === "keys" ? [...pressed] : null;
    const answer = await ask(`/${drive.id}`, {steps, keys, dream, temperature: Number($("temperature").value)});
    const bitmap = await createImageBitmap(await answer.blob());
    if (drive !== going) return;
    drive.facts = JSON.parse(answer.headers.get("Wm-View"));
    measure(drive, steps);
    draw(bitmap, drive.facts);
    tell(drive, dream);
    bitmap.close();
  }

  // The speed of the last two seconds, where 1 is real time.
  function measure(drive, steps) {
    drive.counted = [...drive.counted, [performance.now(), steps]].filter(([at]) => at > performance.now() - 2000);
    const seconds = (drive.counted.at(-1)[0] - drive.counted[0][0]) / 1000;
    const taken = drive.counted.slice(1).reduce((sum, [, count]) => sum + count, 0);
    drive.speed = seconds > 1 ? taken / drive.rate / seconds : 1;
  }

  function draw(bitmap, facts) {
    const top = bitmap.height - SIDE, pen = screen.getContext("2d");
    views.forEach((view, i) => view.firstChild.getContext("2d").drawImage(bitmap, i * SIDE, top, SIDE, SIDE, 0, 0, SIDE, SIDE));
    if (top) {
      if (screen.width !== bitmap.width || screen.height !== top) Object.assign(screen, {width: bitmap.width, height: top});
      pen.drawImage(bitmap, 0, 0, bitmap.width, top, 0, 0, bitmap.width, top);
    } else if (facts.dream) {
      const side = screen.height;
      pen.fillRect(0, 0, screen.width, side);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(bitmap, SIDE, 0, SIDE, SIDE, (screen.width - side) / 2, 0, side, side);
    }
  }

  function tell(drive, dream) {
    const {step, score, action, ended} = drive.facts, inside = drive.facts.dream;
    const scored = `score ${score === null ? "not finite" : score.toFixed(1)}`;
    const parts = [drive.title, ...(inside ? ["M's dream, which has no score"] : [`step ${step}`, scored])];
    if (drive.speed < 0.9) parts.push(`at ${Math.round(drive.speed * 100)} % of real time`);
    $("facts").textContent = parts.join(" · ");
    const keys = value("driver") === "keys" ? "Arrow keys drive while the picture has the focus." : "";
    const note = ended ? "The drive has ended." : dream && !inside ? `The dream begins at step ${drive.calm}.` : keys;
    if ($("note").textContent !== note) $("note").textContent = note;
    views.forEach((view, i) => {
      const name = NAMES[inside ? "dream" : "track"][i];
      if (view.lastChild.textContent !== name) view.lastChild.textContent = name;
    });
    bars.forEach((bar, i) => {
      const low = i ? 0 : -1, at = number => (number - low) / (1 - low) * 100, [from, to] = [0, action[i] || 0].map(at).sort((a, b) => a - b);
      Object.assign(bar.firstChild.style, {left: `${from}%`, width: `${to - from}%`});
    });
  }

  function pause(wanted) {
    paused = wanted;
    $("pause").textContent = paused ? "Go on" : "Pause";
    wake();
  }

  function changed() {
    $("heat").hidden = value("world") !== "dream";
    $("heat").querySelector("output").textContent = $("temperature").value;
    $("pad").hidden = value("driver") !== "keys";
    pressed.clear();
    if (going && going.facts) going.facts.ended = false; // another driver or world may go on
    wake();
  }

  // Keys, and buttons for pointers. Arrow keys do not scroll the page while the picture has the focus.

  held.addEventListener("keydown", event => {
    if (!going || event.ctrlKey || event.altKey || event.metaKey) return;
    if (KEYS[event.key]) pressed.add(KEYS[event.key]);
    else if (event.key === " " && event.target === screen) pause(!paused);
    else return;
    event.preventDefault();
  });
  held.addEventListener("keyup", event => pressed.delete(KEYS[event.key]));
  held.addEventListener("focusout", () => pressed.clear());
  window.addEventListener("blur", () => pressed.clear());
  for (const button of $("pad").children) {
    const key = button.dataset.key;
    button.addEventListener("pointerdown", event => {
      event.preventDefault();
      button.setPointerCapture(event.pointerId);
      pressed.add(key);
    });
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, () => pressed.delete(key));
    button.addEventListener("contextmenu", event => event.preventDefault());
  }

  $("form").addEventListener("submit", start);
  $("run").addEventListener("change", form);
  $("which").addEventListener("change", form);
  $("pause").addEventListener("click", () => pause(!paused));
  $("temperature").addEventListener("input", changed);
  for (const radio of box.querySelectorAll("input[type=radio]")) radio.addEventListener("change", () => {
    changed();
    if (radio.value === "keys") screen.focus();
  });
  box.addEventListener("toggle", () => wake());
  document.addEventListener("visibilitychange", () => wake());
  window.addEventListener("pagehide", stop);
  document.addEventListener("shown", event => { rows = event.detail; form(); });
})();
