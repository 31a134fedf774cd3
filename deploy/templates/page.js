"use strict";
// Everything that comes from the server or from the journey enters the page as text, never as markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const horizons = document.body.dataset.horizons.split(",").map(Number);
  const primary = document.body.dataset.primary;
  const eventLabel = document.body.dataset.eventLabel;
  const colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"];
  const dashes = ["", "7 3", "2 3", "9 3 2 3", "4 2", "1 2"];
  const patience = 60000;
  let sample = "";
  let redraw = () => {};

  // ---- words and numbers
  const percent = (p) => {
    const digits = p === 0 || p >= 0.1 ? 1 : p >= 0.01 ? 2 : 3;
    return `${(100 * p).toFixed(digits)} %`;
  };
  const points = (d) => `${d < 0 ? "−" : "+"}${(100 * Math.abs(d)).toFixed(2)}`;
  const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const drawn = (name, attributes = {}, ...children) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const table = (head, rows) => {
    const cells = (row) => row.map((cell, i) => (cell instanceof Node ? cell : element(i ? "td" : "th", i ? {} : { scope: "row" }, cell)));
    return element("table", {},
      element("thead", {}, element("tr", {}, ...head.map((text, i) => element("th", i ? { scope: "col" } : { scope: "col", class: "left" }, text)))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))));
  };

  // ---- plots: drawn as wide as there is room, so that text keeps its size on a phone
  const room = (id) => Math.max(280, Math.min(820, $(id).clientWidth || 280));
  const step = (most) => {
    const raw = Math.max(most, 1e-6) / 5;
    const power = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  };
  const axes = (svg, width, height, box, top, label) => {
    const size = step(top);
    const highest = Math.min(Math.ceil(top / size - 1e-9) * size || size, 1);
    const y = (p) => height - box.bottom - (p / highest) * (height - box.top - box.bottom);
    const digits = Math.max(0, -Math.floor(Math.log10(100 * size) + 1e-9));
    const decimals = Number.isInteger(Math.round(size * 1e8) / 1e6) ? 0 : Math.max(1, digits);
    for (let p = 0; p <= highest * 1.0001; p += size) {
      svg.append(drawn("line", { x1: box.left, x2: width - box.right, y1: y(p), y2: y(p), stroke: p ? "#e2e6ea" : "#8a8a8a" }));
      svg.append(drawn("text", { x: box.left - 6, y: y(p) + 4, "text-anchor": "end" }, `${(100 * p).toFixed(decimals)} %`));
    }
    if (label) svg.append(drawn("text", { x: (box.left + width - box.right) / 2, y: height - 4, "text-anchor": "middle" }, label));
    return y;
  };
  const titled = (shape, text) => { shape.append(drawn("title", {}, text)); return shape; };
  const picture = (width, height, label) => drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });

  const drawCurve = (curve, probabilities) => {
    const width = room("curve"), height = 260, box = { left: 58, right: 18, top: 22, bottom: 42 };
    const last = curve[curve.length - 1];
    const svg = picture(width, height, `Probability of converting by day: ${horizons.map((h) => `${percent(probabilities[h])} within ${h} days`).join(", ")}.`);
    const y = axes(svg, width, height, box, Math.max(...curve.map((c) => c.probability)) * 1.05, "days");
    const x = (d) => box.left + (d / last.days) * (width - box.left - box.right);
    const path = curve.map((c, i) => `${i ? "L" : "M"}${x(c.days).toFixed(1)},${y(c.probability).toFixed(1)}`).join("");
    svg.append(drawn("path", { d: path, fill: "none", stroke: colours[0], "stroke-width": 2.5, class: "line" }));
    for (const [i, h] of horizons.entries()) {
      svg.append(drawn("text", { x: x(h), y: height - box.bottom + 16, "text-anchor": "middle" }, String(h)));
      svg.append(titled(drawn("circle", { cx: x(h), cy: y(probabilities[h]), r: 5, fill: colours[0] }), `within ${h} days: ${percent(probabilities[h])}`));
      svg.append(drawn("text", { x: x(h) + (i === horizons.length - 1 ? 4 : 0), y: y(probabilities[h]) - 10, "text-anchor": i === horizons.length - 1 ? "end" : "middle" }, percent(probabilities[h])));
    }
    svg.append(drawn("text", { x: x(0), y: height - box.bottom + 16, "text-anchor": "middle" }, "0"));
    $("curve").replaceChildren(svg);
  };

  const drawRunning = (running, labels) => {
    const width = room("running"), named = running.length <= Math.floor((width - 80) / 26);
    const height = named ? 330 : 270, box = { left: 58, right: 18, top: 14, bottom: named ? 104 : 42 };
    const first = running[0].probabilities[primary], last = running[running.length - 1].probabilities[primary];
    const svg = picture(width, height, `Running probability within ${primary} days: ${percent(first)} after the first of ${running.length} events, ${percent(last)} after the last. The table below has every value.`);
    const top = Math.max(...running.flatMap((r) => horizons.map((h) => r.probabilities[h])));
    const y = axes(svg, width, height, box, top * 1.05, named ? "" : "event, oldest first");
    const x = (i) => box.left + 8 + (running.length === 1 ? 0.5 : i / (running.length - 1)) * (width - box.left - box.right - 16);
    horizons.forEach((h, k) => {
      const colour = colours[k % colours.length];
      const path = running.map((r, i) => `${i ? "L" : "M"}${x(i).toFixed(1)},${y(r.probabilities[h]).toFixed(1)}`).join("");
      svg.append(drawn("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dashes[k % dashes.length], class: "line" }));
      running.forEach((r, i) => svg.append(titled(drawn("circle", { cx: x(i), cy: y(r.probabilities[h]), r: 3.5, fill: colour }),
        `${labels[i].name}, ${labels[i].time}: ${percent(r.probabilities[h])} within ${h} days`)));
    });
    running.forEach((_, i) => {
      const at = height - box.bottom + 14;
      if (named) svg.append(titled(drawn("text", { x: x(i), y: at, "text-anchor": "end", transform: `rotate(-50 ${x(i)} ${at})` }, shortened(labels[i].name, 14)), labels[i].name));
      else if (i === 0 || i === running.length - 1 || ((i + 1) % 10 === 0 && running.length - i > 4)) svg.append(drawn("text", { x: x(i), y: at + 2, "text-anchor": "middle" }, String(i + 1)));
    });
    $("running").replaceChildren(svg);
  };

  const drawInfluence = (known) => {
    const width = room("influence"), row = 30, box = { left: Math.min(150, width * 0.34), right: 30, top: 8, bottom: 30 };
    const height = box.top + box.bottom + row * known.length;
    const values = known.flatMap((one) => [one.with[primary], one.without[primary]]);
    const svg = picture(width, height, `Probability within ${primary} days with and without each campaign: ${known.map((one) => `${one.campaign}: ${percent(one.with[primary])} with, ${percent(one.without[primary])} without`).join("; ")}.`);
    const size = step(Math.max(...values) * 1.05), top = Math.min(1, Math.ceil((Math.max(...values) * 1.02) / size) * size || size);
    const x = (p) => box.left + (p / top) * (width - box.left - box.right);
    for (let p = 0; p <= top * 1.0001; p += size) {
      svg.append(drawn("line", { x1: x(p), x2: x(p), y1: box.top, y2: height - box.bottom, stroke: p ? "#e2e6ea" : "#8a8a8a" }));
      svg.append(drawn("text", { x: x(p), y: height - box.bottom + 16, "text-anchor": "middle" }, `${parseFloat((100 * p).toPrecision(4))} %`));
    }
    known.forEach((one, i) => {
      const y = box.top + row * (i + 0.5), from = x(one.without[primary]), to = x(one.with[primary]);
      const colour = one.difference[primary] < 0 ? colours[1] : colours[0];
      svg.append(titled(drawn("text", { x: box.left - 8, y: y + 4, "text-anchor": "end" }, shortened(one.campaign, Math.floor(box.left / 7.5))), one.campaign));
      svg.append(drawn("line", { x1: from, x2: to, y1: y, y2: y, stroke: colour, "stroke-width": 3 }));
      svg.append(titled(drawn("circle", { cx: from, cy: y, r: 5, fill: "#fff", stroke: colour, "stroke-width": 2 }), `without: ${percent(one.without[primary])}`));
      svg.append(titled(drawn("circle", { cx: to, cy: y, r: 5, fill: colour }), `with: ${percent(one.with[primary])}`));
    });
    $("influence").replaceChildren(svg);
  };

  // ---- which event a running probability stands after
  const micros = (value) => {
    if (typeof value === "number") return String(Math.round(value));
    const found = /^(.*?)(?:\.(\d+))?\s*(Z|UTC|[+-]\d\d:?\d\d)?$/i.exec(String(value));
    const zone = !found[3] || /^(z|utc)$/i.test(found[3]) ? "Z" : found[3];
    const whole = Date.parse(found[1].replace(" ", "T") + zone);
    if (Number.isNaN(whole)) return String(value);
    return String(BigInt(whole) * 1000n + BigInt((found[2] || "").padEnd(6, "0").slice(0, 6)));
  };
  const eventsOf = (instance) => {
    if (Array.isArray(instance.events)) return instance.events.filter((event) => event && typeof event === "object");
    const times = instance.event_time || instance.seconds || [];
    return times.map((_, i) => Object.fromEntries(Object.entries(instance).filter(([, v]) => Array.isArray(v)).map(([k, v]) => [k, v[i]])));
  };
  const labelled = (running, instance) => {
    const byTime = new Map();
    for (const event of eventsOf(instance)) {
      const at = "seconds" in event ? String(Math.round(event.seconds * 1e6)) : micros(event.event_time);
      byTime.set(at, [...(byTime.get(at) || []), event]);
    }
    return running.map((r) => {
      const given = "seconds" in r ? r.seconds : r.event_time;
      const event = (byTime.get("seconds" in r ? String(Math.round(r.seconds * 1e6)) : micros(given)) || []).shift() || {};
      const name = event[eventLabel];
      const time = "seconds" in event ? `${event.seconds} s` : String(given).replace("T", " ").replace(/(\.\d+)?(Z|\+00:00)$/, "");
      return { name: name === undefined || name === null || name === "" ? "(missing)" : String(name), time };
    });
  };

  // ---- the answer
  const show = (answer, instance) => {
    const { probabilities } = answer, curve = answer.curve || [], running = answer.running || [], influence = answer.influence || [];
    $("tiles").replaceChildren(...horizons.map((h) => element("li", {}, element("strong", {}, percent(probabilities[h])), `within ${h} ${h === 1 ? "day" : "days"}`)));

    const labels = labelled(running, instance);
    const legend = horizons.map((h, k) => element("span", {},
      drawn("svg", { width: 28, height: 10, "aria-hidden": "true" }, drawn("line", { x1: 0, x2: 28, y1: 5, y2: 5, stroke: colours[k % colours.length], "stroke-width": 2.5, "stroke-dasharray": dashes[k % dashes.length] })),
      `within ${h} ${h === 1 ? "day" : "days"}`));
    $("legend").replaceChildren(...legend);
    $("curve-table").replaceChildren(table(["Day", "Probability"], curve.map((c) => [String(c.days), percent(c.probability)])));
    $("running-table").replaceChildren(table(["#", "Event", "Time", ...horizons.map((h) => `Within ${h} d`)],
      running.map((r, i) => [String(i + 1), element("td", { class: "left" }, labels[i].name), element("td", { class: "left" }, labels[i].time), ...horizons.map((h) => percent(r.probabilities[h]))])));

    const known = influence.filter((one) => !one.reason && one.with && one.with[primary] !== null);
    const claims = [...new Set(known.map((one) => one.claim))];
    const plain = {
      association: "An association, not an effect: the probability of the journey with the campaign, beside that of the same journey without it and without the campaign's events. It does not say what sending the campaign would change.",
      randomised: "Lots were drawn over who was sent it in training: the difference is the model's estimate of what sending the campaign now would change, without an interval.",
    };
    const of = (claim) => claims.length > 1 ? `${known.filter((one) => one.claim === claim).map((one) => one.campaign).join(", ")}: ` : "";
    $("claim").textContent = influence.length === 0 ? "This journey holds no campaign that the model could tell apart." : claims.map((claim) => of(claim) + (plain[claim] || `What these numbers claim: ${claim}.`)).join(" ");
    $("influence-table").replaceChildren(...(influence.length ? [table(["Campaign", "Within", "With it", "Without it", "Difference in points"], influence.flatMap((one) =>
      known.includes(one)
        ? horizons.map((h, i) => [i ? "" : one.campaign, `${h} d`, percent(one.with[h]), percent(one.without[h]), points(one.difference[h])])
        : [[one.campaign, element("td", { class: "reason", colspan: 4 }, `No number: ${one.reason || "the model gives none"}.`)]]))] : []));

    $("result").hidden = false;
    for (const name of ["curve-figure", "curve-details"]) $(name).hidden = curve.length < 2;
    for (const name of ["running-figure", "running-details"]) $(name).hidden = running.length === 0;
    $("running-none").hidden = running.length > 0;
    $("running-none").textContent = eventsOf(instance).length ? "The model gives no running probability of this journey." : "This journey has no events.";
    $("influence-figure").hidden = known.length === 0;
    redraw = () => {
      if (curve.length > 1) drawCurve(curve, probabilities);
      if (running.length) drawRunning(running, labels);
      if (known.length) drawInfluence(known);
    };
    redraw();
    $("h-probability").focus();
  };

  // ---- talking to the server
  const trouble = (message) => {
    $("problem").textContent = message;
    $("problem").hidden = !message;
  };
  const ask = async (path, options = {}) => {
    const token = $("token").value.trim();
    const headers = { ...(options.body ? { "Content-Type": "application/json" } : {}), ...(token ? { Authorization: `Bearer ${token}` } : {}) };
    let response, text;
    try {
      response = await fetch(path, { ...options, headers, signal: AbortSignal.timeout(patience) });
      text = await response.text();
    } catch (error) {
      throw new Error(error.name === "TimeoutError" ? `No answer within ${patience / 1000} s.` : "The server cannot be reached.");
    }
    if (response.status === 401 || response.status === 403) {
      $("token-field").hidden = false;
      throw new Error(token ? "The server refuses this bearer token." : "The server asks for a bearer token.");
    }
    let answer = null;
    try { answer = JSON.parse(text); } catch { /* said below: whatever it is, it is no answer */ }
    if (!response.ok || answer === null) {
      const error = (answer && answer.error) || {};
      const failure = new Error(error.message || `The server answered ${response.status} ${response.statusText}, and nothing that this page can read.`);
      failure.field = error.field;
      throw failure;
    }
    return answer;
  };

  const predict = async () => {
    const text = $("journey").value;
    $("journey").removeAttribute("aria-invalid");
    trouble("");
    if (!text.trim()) {
      $("journey").setAttribute("aria-invalid", "true");
      trouble("Paste a journey, or take the sample.");
      return;
    }
    let instance;
    try {
      instance = JSON.parse(text);
    } catch (error) {
      $("journey").setAttribute("aria-invalid", "true");
      trouble(`The journey is not JSON: ${error.message}`);
      return;
    }
    $("predict").disabled = true;
    $("status").textContent = "Asking the model…";
    try {
      // The text itself, not what JavaScript makes of it: integers keep their digits.
      show(await ask("explain", { method: "POST", body: `{"instance": ${text}}` }), instance);
      $("status").textContent = "";
    } catch (error) {
      $("result").hidden = true;
      $("status").textContent = "";
      if (error.field) $("journey").setAttribute("aria-invalid", "true");
      trouble(error.field && !error.message.includes(error.field) ? `${error.field}: ${error.message}` : error.message);
      if (!$("token-field").hidden) $("token").focus();
    } finally {
      $("predict").disabled = false;
    }
  };

  const fetchSample = async () => {
    trouble("");
    try {
      sample = JSON.stringify((await ask("model")).sample, null, 1);
      $("journey").value = sample;
    } catch (error) {
      trouble(error.message);
    }
  };

  $("form").addEventListener("submit", (event) => { event.preventDefault(); predict(); });
  $("sample").addEventListener("click", fetchSample);
  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width) { width = window.innerWidth; redraw(); }
  });
  fetchSample();
})();
