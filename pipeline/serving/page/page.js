"use strict";

const STRENGTHS = 4, STRONGEST = 6, CLASSES = 6;
const at = (id) => document.getElementById(id);
let key = sessionStorage.getItem("key");

/* An element with text in it, never markup. */
function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

/* What the server answers, or an error that says why not. */
async function ask(path, body) {
  const headers = {};
  if (body) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  } catch {
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  let answer;
  try { answer = await response.json(); } catch { answer = {}; }
  if (response.ok) return answer;
  if (response.status === 401) askForKey();
  throw new Refused(response.status, answer.error || `The server answered ${response.status}.`);
}

function askForKey() {
  at("key-form").hidden = false;
  at("key").focus();
}

function percent(p) {
  const shown = (100 * p).toFixed(1);
  return shown === "100.0" && p < 1 ? "> 99.9 %" : shown === "0.0" && p > 0 ? "< 0.1 %" : `${shown} %`;
}

function signed(value) {
  return (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);
}

/* Run the work of a form once at a time, with what it says while it works and when it fails. */
function form(name, said, work) {
  const button = at(`${name}-button`), status = at(`${name}-status`), error = at(`${name}-error`);
  let busy = false;
  at(name).addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    error.hidden = true;
    button.setAttribute("aria-disabled", "true");
    status.classList.add("busy");
    status.textContent = said;
    try {
      status.textContent = await work();
    } catch (problem) {
      status.textContent = "";
      error.textContent = problem instanceof Refused ? problem.message : `Something went wrong on this page: ${problem.message}`;
      error.hidden = false;
    } finally {
      busy = false;
      button.removeAttribute("aria-disabled");
      status.classList.remove("busy");
    }
  });
}

function sendWithKeys(field, formName) {
  at(field).addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at(formName).requestSubmit();
  });
}

/* --- classify ------------------------------------------------------------------------------- */

async function classify() {
  const text = at("text").value;
  const missing = !text.trim();
  at("text").setAttribute("aria-invalid", String(missing));
  if (missing) {
    at("text").focus();
    throw new Refused(0, "There is no text yet: type or paste some.");
  }
  const names = [at("first").value, at("second").value].filter((name, i, all) => name && all.indexOf(name) === i);
  const started = performance.now();
  const answers = await Promise.all(
    names.map((model) => ask("/explain", { text, model, method: at("method").value })));
  const results = at("results");
  results.replaceChildren(...answers.map((answer) => result(answer, names.length > 1)));
  results.classList.toggle("two", names.length > 1);
  document.body.classList.toggle("compares", names.length > 1);
  const verdicts = answers.map((a) => `${a.label}, ${percent(a.probabilities[a.label])}`).join(" and ");
  return `${verdicts} in ${Math.round(performance.now() - started)} ms`;
}

function result(answer, named) {
  const card = element("article", "card result");
  const title = element("h3", "", named ? answer.model : `By ${answer.model}`);
  const verdict = element("p", "verdict");
  verdict.append(element("span", "label", answer.label),
    element("span", "probability", percent(answer.probabilities[answer.label])));
  card.append(title, verdict, classes(answer.probabilities), marked(answer.words), legend(answer), strongest(answer));
  return card;
}

function classes(probabilities) {
  const list = element("ul", "classes");
  const sorted = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  for (const [label, p] of sorted.slice(0, CLASSES)) {
    const item = element("li");
    const meter = element("meter");
    meter.min = 0; meter.max = 1; meter.value = p;
    meter.setAttribute("aria-label", label);
    item.append(element("span", "", label), meter, element("span", "share", percent(p)));
    list.append(item);
  }
  if (sorted.length > CLASSES) list.append(element("li", "", `and ${sorted.length - CLASSES} more`));
  return list;
}

function marked(words) {
  const largest = Math.max(...words.map((word) => Math.abs(word.value || 0)), 0) || 1;
  const block = element("p", "words");
  block.dir = "auto";
  block.tabIndex = 0;
  block.setAttribute("role", "region");
  block.setAttribute("aria-label", "Your text as the model reads it, words marked");
  words.forEach((word, i) => {
    if (i && !word.glued) block.append(" ");
    const strength = Math.round(STRENGTHS * (word.value || 0) / largest);
    if (!strength) { block.append(word.text); return; }
    const mark = element("mark", `${strength > 0 ? "for" : "against"} s${Math.abs(strength)}`, word.text);
    mark.title = signed(word.value);
    block.append(mark);
  });
  if (!words.length) block.append("(no words)");
  return block;
}

function legend(answer) {
  const line = element("p", "legend");
  line.append("Marked: ", element("mark", "for s3", "for"), ` ${answer.explained} (solid), `,
    element("mark", "against s3", "against"), " it (dotted); the deeper the colour, the stronger.");
  return line;
}

function strongest(answer) {
  const words = answer.words.filter((word) => word.value && /[\p{L}\p{N}]/u.test(word.text));
  words.sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const table = element("table");
  table.append(element("caption", "", words.length ? `Strongest words, in log-odds of ${answer.explained}` : "No word made a difference."));
  const body = element("tbody");
  for (const word of words.slice(0, STRONGEST)) {
    const row = element("tr");
    const name = element("th", "", word.text);
    name.scope = "row";
    const cell = element("td"), value = element("td", "value", signed(word.value));
    cell.append(bar(word.value / Math.abs(words[0].value)));
    row.append(name, cell, value);
    body.append(row);
  }
  table.append(body);
  return table;
}

/* A bar from the middle: to the right for, to the left against. */
function bar(share) {
  const span = element("span", "bar");
  span.setAttribute("aria-hidden", "true");
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg"), rect = document.createElementNS(space, "rect");
  const width = 50 * Math.abs(share);
  rect.setAttribute("class", share > 0 ? "for-bar" : "against-bar");
  rect.setAttribute("x", `${share > 0 ? 50 : 50 - width}%`);
  rect.setAttribute("width", `${width}%`);
  rect.setAttribute("height", "100%");
  rect.setAttribute("rx", "2");
  svg.append(rect);
  span.append(svg);
  return span;
}

/* --- continue ------------------------------------------------------------------------------- */

function whole(id, least, most) {
  const field = at(id), value = Number(field.value);
  const good = field.value.trim() !== "" && Number.isInteger(value) && value >= least && value <= most;
  field.setAttribute("aria-invalid", String(!good));
  if (good) return value;
  field.focus();
  throw new Refused(0, `${field.labels[0].textContent} must be a whole number from ${least} to ${most}.`);
}

async function generate() {
  const prompt = at("prompt").value;
  const started = performance.now();
  const answer = await ask("/generate", {
    prompt, temperature: Number(at("temperature").value), max_tokens: whole("max-tokens", 1, 400),
    samples: whole("samples", 1, 8), seed: whole("seed", 0, Number.MAX_SAFE_INTEGER),
  });
  at("sample-list").replaceChildren(...answer.samples.map((sample) => {
    const item = element("li");
    item.dir = "auto";
    const cut = sample.text.endsWith(sample.written) ? sample.text.length - sample.written.length : 0;
    if (cut) item.append(element("span", "given", sample.text.slice(0, cut)), sample.text.slice(cut));
    else item.append(sample.text);
    if (sample.ended === "max_tokens") item.append(element("span", "more", " \u2026"));
    return item;
  }));
  const n = answer.samples.length;
  return `${n} ${n === 1 ? "sample" : "samples"} by ${answer.model} in ${((performance.now() - started) / 1000).toFixed(1)} s`;
}

/* --- what is served ------------------------------------------------------------------------- */

async function start() {
  let models;
  try {
    models = await ask("/models");
  } catch (problem) {
    at("served").textContent = problem.message;
    return;
  }
  at("key-form").hidden = true;
  const names = models.classifiers.map((classifier) => classifier.name);
  at("first").replaceChildren(...names.map((name) => new Option(name, name)));
  at("second").replaceChildren(new Option("none", ""), ...names.map((name) => new Option(name, name)));
  at("first-control").hidden = at("second-control").hidden = names.length < 2;
  if (names.length > 1) at("second").value = names[1];
  const labels = models.classifiers[0].labels;
  at("served").textContent = names.length > 1
    ? `Classifiers: ${names.join(", ")}.`
    : `The classifier ${names[0]} tells ${labels.length > 4 ? `${labels.length} classes` : labels.join(" from ")}.`;
  const lm = models.language_model;
  at("generate-section").hidden = !lm;
  if (lm && lm.direction === "bwd") at("prompt-label").textContent = "End of a text";
  at("main").hidden = false;
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  sessionStorage.setItem("key", key);
  start();
});
at("temperature").addEventListener("input", () => {
  at("temperature-value").textContent = Number(at("temperature").value).toFixed(2);
});
form("classify", "Reading your text \u2026", classify);
form("generate", "Writing \u2026", generate);
sendWithKeys("text", "classify");
sendWithKeys("prompt", "generate");
start();
