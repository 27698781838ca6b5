"use strict";
// Everything that comes from a file or the server is shown with textContent: it stays text.

const find = (id) => document.getElementById(id);
const plain = (name) => name.replaceAll("_", " ");
const SPLITS = { train: "training", val: "validation", test: "test", left_out: "left-out" };
const BARS = 4; // probabilities that are shown at once
const RETRY = 700; // milliseconds between tries while no server answers
const SOON = 800; // between looks at the server while predictions are missing
const LATER = 4000; // and while none are: others may decide too

let about; // what the server serves
let pictures = []; // of this page, in the order in which they are shown: {data, tile, ...}
let first = 0; // position of this page among those that match
let matching = 0;
let current = 0; // index into `pictures`
let anchor = 0; // where a range of selected pictures starts
let loading = true;
let touched = false; // whether anybody has worked on this page since it was shown
let large = false;
let mapped = false;
let waiting = Promise.resolve(); // the last of the requests, which go one after another
let unsaved = 0;
let looking = new AbortController(); // of the question about the large picture
const undoable = []; // {row, kept: [{one, version}]}: what this page decided, the last one last

// ---------------------------------------------------------------- the server

async function get(address, signal) {
  const response = await fetch(address, { signal });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

async function start() {
  about = await get("set");
  find("title").textContent = about.title;
  find("file").textContent = `${about.by} decides; decisions go to ${about.file}`;
  find("bar").max = about.count;
  find("grouped").firstElementChild.textContent = about.new ? "Predicted" : "Class";
  find("map").hidden = !about.predicts;
  find("classes").append(...about.classes.map(classButton));
  find("key-list").append(...about.classes.map(keyRow));
  await load({ from: 0 });
  setTimeout(watch, SOON);
}

/** Shows the page from one index on, or that before an index; `last`: at its last picture. */
async function load({ from = 0, before, last = false }) {
  loading = true;
  const wanted = new URLSearchParams({ show: find("show").value, group: find("group").value });
  if (before === undefined) wanted.set("from", from);
  else wanted.set("before", before);
  try {
    const answer = await get(`list?${wanted}`);
    ({ first, matching } = answer);
    pictures = answer.pictures.map((data) => ({ data, ticket: 0, pending: 0 }));
    touched = false;
    progress(answer);
    showGroups(answer.groups);
    render(last ? pictures.length - 1 : 0);
    trouble("");
  } catch (error) {
    trouble(`The page cannot be shown: ${said(error)}`);
  } finally {
    loading = false;
  }
}

const said = (error) => // a TypeError is what fetch throws when no server answers
  error instanceof TypeError ? "no answer; is the server still running?" : error.message;

/** Looks now and then at what the server knows: predictions, and decisions of others. */
async function watch() {
  const missing = (one) => about.predicts && !one.data.predicted && !one.data.error;
  let pause = LATER;
  if (pictures.length && !document.hidden && !loading && !unsaved) {
    const asked = pictures;
    try {
      const answer = await get(`states?of=${asked.map((one) => one.data.index)}`);
      if (asked === pictures) {
        progress(answer);
        takeOver(answer.pictures);
        if (!answer.fault && pictures.some(missing)) pause = SOON;
        else regroup();
      }
    } catch (error) {
      trouble(`No decisions can be saved now: ${said(error)}`);
    }
  }
  setTimeout(watch, pause);
}

function takeOver(states) {
  const others = [];
  for (const state of states) {
    const one = pictures.find((picture) => picture.data.index === state.index);
    if (!one || one.pending || state.version < one.data.version) continue;
    if (state.version !== one.data.version) others.push(state);
    update(one, state);
  }
  if (others.length) {
    touched = true;
    say(`${others[0].by} decided on ${amount(others.length)}: ${told(others[0])}`);
  }
}

function progress({ done, fault }) {
  find("bar").value = done;
  find("count").textContent = `${done} of ${about.count} done`;
  document.title = `${done}/${about.count} ${about.title}`;
  if (fault) trouble(`No predictions: ${fault}`);
}

// ---------------------------------------------------------------- decisions

/** Decides on the selected pictures, or the current one. `choose`: picture -> {action, label}. */
function decide(choose) {
  if (loading) return say("The next pictures are still loading: nothing was decided.");
  const chosen = targets();
  const entries = chosen
    .map((one) => ({ one, ticket: one.ticket, ...choose(one.data) }))
    .filter((entry) => entry.action);
  if (!entries.length) return say(chosen.length ? "Nothing to accept: choose a class." : "No picture.");
  const several = selected().length > 0;
  mark(entries, 1);
  enqueue(() => deliver(entries));
  if (several) select([]);
  else advance();
}

/** Restores what was before the last decision, unless somebody has decided since. */
function undo() {
  enqueue(async () => {
    const last = undoable.pop();
    if (!last) return say("Nothing to undo on this page.");
    const entries = last.kept.map(({ one }) => {
      const shown = pictures.find((other) => other.data.index === one.data.index) ?? one;
      return { one: shown, ticket: shown.ticket, action: "undo", row: last.row };
    });
    if (entries.some(({ one }, place) => one.data.version !== last.kept[place].version)) {
      return say("Not undone: somebody has decided since.");
    }
    mark(entries, 1);
    await deliver(entries);
    const place = pictures.indexOf(entries[0].one);
    if (place >= 0) go(place);
  });
}

function enqueue(work) {
  unsaved += 1;
  const failed = (error) => trouble(`Not saved: ${error.message}. Load the page again.`);
  waiting = waiting.then(work).catch(failed).finally(() => (unsaved -= 1));
}

function mark(entries, change) {
  touched = true;
  for (const { one } of entries) {
    one.pending += change;
    one.tile?.classList.toggle("saving", one.pending > 0);
  }
}

/** Sends decisions until a server has answered; then shows what holds. */
async function deliver(entries) {
  try {
    if (entries.some(({ one, ticket }) => one.ticket !== ticket)) {
      return say("Not decided: somebody else was faster, so look again.");
    }
    const body = JSON.stringify({
      set: about.set,
      pictures: entries.map(({ one, action, label, row }) => ({
        index: one.data.index,
        version: one.data.version,
        action,
        ...(label && { label }),
        ...(row && { row }),
      })),
    });
    const { status, answer } = await post(body);
    trouble(status === 410 ? `Not saved: ${answer.error}.` : "");
    if (status === 200) return saved(entries, answer);
    if (status === 409) return refused(entries, answer);
    say(`Not saved: ${answer.error}`);
  } finally {
    mark(entries, -1);
  }
}

async function post(body) {
  for (;;) {
    try {
      const headers = { "x-jaxgear": "1", "content-type": "application/json" };
      const response = await fetch("decide", { method: "POST", body, headers });
      const answer = await response.json().catch(() => null); // null: cut off, or none of ours
      if (answer) return { status: response.status, answer };
      if (response.status !== 503 && !response.ok) {
        return { status: response.status, answer: { error: `the server answered ${response.status}` } };
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    trouble(`${unsaved} not saved yet: no server answers here. Start it again; this page waits.`);
    await new Promise((done) => setTimeout(done, RETRY));
  }
}

function saved(entries, answer) {
  progress(answer);
  for (const state of answer.pictures) {
    for (const one of [...pictures, ...entries.map((entry) => entry.one)]) {
      if (one.data.index === state.index) update(one, state);
    }
  }
  const versions = new Map(answer.pictures.map((state) => [state.index, state.version]));
  if (entries[0].action === "undo") {
    for (const { kept } of undoable) {
      for (const entry of kept) entry.version = versions.get(entry.one.data.index) ?? entry.version;
    }
  } else {
    const kept = entries.map(({ one }) => ({ one, version: one.data.version }));
    // The rows of one request follow each other; copies of a picture have the version of the last.
    const row = Math.max(...kept.map(({ version }) => version)) - kept.length + 1;
    undoable.push({ row, kept });
  }
  const told = entries.length > 1 ? amount(entries.length) : entries[0].one.data.name;
  say(`${told}: ${entries[0].action === "undo" ? "undone" : decided(entries[0])}. ${find("count").textContent}.`);
}

const decided = ({ action, label }) => (action === "remove" ? "removed" : plain(label));

/** A decision made on an older state. It may be our own, whose answer was lost with a server. */
function refused(entries, answer) {
  const states = new Map(answer.pictures.map((state) => [state.index, state]));
  const ours = ({ one, action, label }) => {
    const state = states.get(one.data.index);
    if (!state || state.by !== about.by || state.version <= one.data.version) return false;
    if (action === "remove") return state.removed;
    return action === "label" && !state.removed && state.current === label;
  };
  if (entries.every(ours)) return saved(entries, answer);
  for (const { one } of entries) {
    const state = states.get(one.data.index);
    if (!state) continue;
    one.ticket += 1;
    update(one, state);
  }
  progress(answer);
  const [state] = answer.pictures;
  const place = pictures.findIndex((one) => one.data.index === state.index);
  if (place >= 0) go(place);
  say(`Nothing was written: ${state.by ?? "somebody"} was faster: ${told(state)}. Decide again if you disagree.`);
}

const told = (state) => {
  if (state.removed) return `${state.name} is removed`;
  return `${state.name} is ${state.current ? plain(state.current) : "undecided"}`;
};
const amount = (count) => (count === 1 ? "1 picture" : `${count} pictures`);

// ---------------------------------------------------------------- what is shown

function render(place) {
  const grid = find("grid");
  const held = grid.contains(document.activeElement);
  const parts = [];
  for (const one of pictures) {
    const name = heading(one.data);
    one.tile ??= tileOf(one);
    if (!parts.length || parts.at(-1).name !== name) parts.push({ name, tiles: [] });
    parts.at(-1).tiles.push(one.tile);
    update(one, one.data);
  }
  grid.replaceChildren(...parts.map(({ name, tiles }) => groupOf(name, tiles)));
  if (!pictures.length) {
    const empty = document.createElement("p");
    empty.id = "empty";
    empty.textContent = "No such pictures.";
    grid.append(empty);
  }
  grid.tabIndex = pictures.length ? -1 : 0;
  anchor = current = Math.max(0, Math.min(place, pictures.length - 1));
  go(current, { focus: held || document.activeElement === document.body });
  const end = first + pictures.length;
  find("place").textContent = matching ? `${first + 1} to ${end} of ${matching}` : "none";
  find("back").ariaDisabled = first === 0;
  find("forth").ariaDisabled = end >= matching;
}

/** The heading above a picture; none where a queue gives the order. */
function heading({ label, predicted, error }) {
  if (about.ordered) return "";
  if (!about.new) return plain(label ?? "");
  if (error) return "unreadable";
  return predicted ? `predicted ${plain(predicted)}` : about.predicts ? "not predicted yet" : "";
}

function groupOf(name, tiles) {
  const group = document.createElement("div");
  const box = document.createElement("div");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", name || "in the order of the queue");
  if (name) {
    const title = document.createElement("h2");
    title.setAttribute("role", "presentation");
    title.textContent = name;
    group.append(title);
  }
  box.className = "tiles";
  box.setAttribute("role", "presentation");
  box.append(...tiles);
  group.append(box);
  return group;
}

/** New pictures of the page side by side by predicted class, unless somebody works on them. */
function regroup() {
  if (!about.new || about.ordered || touched || selected().length || current) return;
  const order = [...pictures].sort((a, b) => heading(a.data).localeCompare(heading(b.data)));
  if (order.every((one, place) => one === pictures[place]) && find("grid").childElementCount > 1) return;
  pictures = order;
  render(0);
}

function tileOf(one) {
  const tile = document.createElement("div");
  tile.className = "tile";
  tile.setAttribute("role", "option");
  tile.setAttribute("aria-selected", "false");
  tile.tabIndex = -1;
  const image = document.createElement("img");
  image.loading = "lazy";
  image.alt = "";
  image.width = image.height = 192;
  image.addEventListener("error", () => unreadable(one, image));
  image.src = `thumbnail/${one.data.index}`;
  const lines = ["state", "other", "more"].map((kind) => {
    const line = document.createElement("p");
    line.className = kind;
    return line;
  });
  tile.append(image, ...lines);
  tile.addEventListener("click", (event) => {
    const place = pictures.indexOf(one);
    if (event.shiftKey) range(place);
    else if (event.ctrlKey || event.metaKey || find("several").ariaPressed === "true") toggle(place);
    else anchor = place;
    go(place);
  });
  tile.addEventListener("dblclick", () => view(true));
  return tile;
}

/** Asks why a thumbnail did not come, and says it in the tile; without an answer, tries again. */
async function unreadable(one, image) {
  const { error } = await get(`picture/${one.data.index}`).catch(() => ({}));
  if (!error) {
    const again = () => image.isConnected && (image.src = `thumbnail/${one.data.index}?${Date.now()}`);
    return setTimeout(again, LATER);
  }
  const blank = document.createElement("p");
  blank.className = "blank";
  blank.textContent = `Unreadable: ${error}`;
  image.replaceWith(blank);
  update(one, { ...one.data, error });
}

/** Shows the state of a picture in its tile and, if it is the current one, beside it. */
function update(one, state) {
  one.data = state;
  const { tile } = one;
  if (tile) {
    const part = (kind) => tile.querySelector(`.${kind}`);
    tile.classList.toggle("done", state.done && !state.removed);
    tile.classList.toggle("removed", state.removed);
    part("state").textContent = stateOf(state);
    const doubt = state.predicted && state.predicted !== (state.current ?? state.predicted);
    part("other").textContent = doubt || about.new ? predictionOf(state) : "";
    part("other").hidden = !part("other").textContent;
    part("more").textContent = reasonOf(state);
    part("more").hidden = !part("more").textContent;
    const words = [state.name, stateOf(state), predictionOf(state), reasonOf(state)];
    if (state.error) words.push(`unreadable: ${state.error}`);
    tile.setAttribute("aria-label", words.filter(Boolean).join(", "));
  }
  if (one === pictures[current]) facts();
}

function stateOf({ label, current, removed, done, by }) {
  const was = label && label !== current ? `${plain(label)} → ` : "";
  if (removed) return done ? "✕ removed" : `✕ removed by ${by}`;
  if (!current) return "no label";
  return `${done ? "✓ " : ""}${was}${plain(current)}${by && !done && was ? ` by ${by}` : ""}`;
}

const predictionOf = ({ predicted, probability }) =>
  predicted ? `model: ${plain(predicted)} ${probability}` : "";

function reasonOf({ reason: { kind, score, suggested } }) {
  const words = [kind, score && `score ${score}`, suggested && `suggested: ${plain(suggested)}`];
  return words.filter(Boolean).join(", ");
}

/** What is known of the picture that a decision is about. */
function facts() {
  const one = pictures[current];
  const many = selected().length;
  find("target").textContent = many ? `${many} selected` : (one?.data.name ?? "nothing");
  const state = one?.data;
  const rows = state
    ? [
        ["Label", stateOf(state)],
        ["Model", state.predicted && `${plain(state.predicted)} ${state.probability}`],
        ["Queue", reasonOf(state)],
        ["Decided by", state.by],
        ["Reason", state.note],
        ["Unreadable", state.error],
      ].filter(([, text]) => text)
    : [];
  const list = rows.flatMap(([name, text]) => {
    const [term, value] = ["dt", "dd"].map((tag) => document.createElement(tag));
    term.textContent = name;
    value.textContent = text;
    return [term, value];
  });
  find("facts").replaceChildren(...list);
  const accept = state?.accept;
  find("accepted").textContent = !accept || many ? "" : decided(accept);
  for (const button of find("classes").children) {
    button.classList.toggle("here", Boolean(state) && button.value === state.current && !state.removed);
  }
  find("caption").textContent = state ? `${state.name}: ${stateOf(state)}` : "";
}

/** Shows the current picture large, with its probabilities or where the model looked. */
async function enlarge() {
  const one = pictures[current];
  find("probabilities").hidden = true;
  looking.abort(); // it may wait for a prediction, and hold one of the browser's few connections
  looking = new AbortController();
  if (!one) return;
  const { index, name } = one.data;
  const image = find("picture");
  find("extra").textContent = "";
  find("unreadable").hidden = true;
  image.hidden = false;
  image.alt = name;
  image.onerror = () => {
    image.hidden = true;
    find("unreadable").hidden = false;
    find("unreadable").textContent = mapped ? "No map of this picture." : `${name} is unreadable.`;
  };
  if (!mapped) image.src = `large/${index}`;
  try {
    const found = await get(`picture/${index}`, looking.signal);
    if (pictures[current] !== one) return;
    if (!one.pending && found.version >= one.data.version) update(one, found);
    const bars = found.classes.map(bar);
    find("probabilities").hidden = !bars.length;
    find("likeliest").replaceChildren(...bars.slice(0, BARS));
    find("others").replaceChildren(...bars.slice(BARS));
    find("rest").hidden = bars.length <= BARS;
    const extra = [];
    if (found.side) {
      const split = `In the model's ${SPLITS[found.side]} split`;
      extra.push(`${split}${found.side === "train" ? ", so it was trained on this" : ""}.`);
    }
    if (found.error) image.onerror();
    if (mapped && found.classes.length) {
      const seen = found.classes[0].name;
      image.src = `map/${index}?class=${encodeURIComponent(seen)}`;
      image.alt = `${name}: red where the model sees ${plain(seen)}`;
      extra.push(`Red: where the model sees ${plain(seen)}.`);
    }
    find("extra").textContent = extra.join(" ");
  } catch (error) {
    if (error.name !== "AbortError") trouble(`The picture cannot be shown: ${said(error)}`);
  }
}

function bar({ name, probability }) {
  const item = document.createElement("li");
  const [label, track, fill, value] = ["span", "span", "span", "span"].map((tag) =>
    document.createElement(tag)
  );
  label.textContent = plain(name);
  track.className = "track";
  fill.className = "fill";
  fill.style.width = `${100 * probability}%`;
  value.className = "value";
  value.textContent = probability.toFixed(2);
  track.append(fill);
  item.append(label, track, value);
  return item;
}

function classButton(name, place) {
  const button = document.createElement("button");
  const text = document.createElement("span");
  button.type = "button";
  button.value = name;
  text.textContent = plain(name);
  button.append(text);
  if (about.keys[place]) {
    const key = document.createElement("kbd");
    key.textContent = about.keys[place];
    button.append(key);
  }
  button.addEventListener("click", pointed(() => label(name)));
  return button;
}

function keyRow(name, place) {
  const [row, key, text] = ["tr", "th", "td"].map((tag) => document.createElement(tag));
  const letter = document.createElement("kbd");
  letter.textContent = about.keys[place] ?? "/";
  key.scope = "row";
  key.append(letter);
  text.textContent = plain(name);
  row.append(key, text);
  return row;
}

function showGroups(groups) {
  const names = { "?": "not predicted yet", none: "no gear" };
  const select = find("group");
  const chosen = select.value;
  const options = [["", `all (${about.count})`]];
  for (const { group, name, count } of groups) {
    options.push([String(group), `${names[name] ?? plain(name)} (${count})`]);
  }
  select.replaceChildren(
    ...options.map(([value, text]) => {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = text;
      return option;
    })
  );
  select.value = chosen;
  if (select.selectedIndex < 0) select.value = "";
}

function say(text) {
  find("status").textContent = text;
}

function trouble(text) {
  find("trouble").hidden = !text;
  find("trouble").textContent = text;
}

// ---------------------------------------------------------------- moving and selecting

/** Makes a picture of the page the current one. */
function go(place, { focus = true } = {}) {
  pictures[current]?.tile.classList.remove("current");
  if (pictures[current]) pictures[current].tile.tabIndex = -1;
  current = place;
  const one = pictures[current];
  if (one) {
    one.tile.tabIndex = 0;
    one.tile.classList.add("current");
  }
  facts();
  if (large) enlarge();
  if (focus) refocus();
  if (!large && one && focus) one.tile.scrollIntoView({ block: "nearest" });
}

function refocus() {
  const place = large ? find("figure") : (pictures[current]?.tile ?? find("grid"));
  place.focus({ preventScroll: true });
}

/** To the next picture after a decision; the focus stays on a button that was used by key. */
function advance() {
  const busy = document.activeElement?.closest("aside, nav, #tools, #large p");
  if (current + 1 < pictures.length) {
    anchor = current + 1;
    go(current + 1, { focus: !busy });
  } else turn(1);
}

function move(step) {
  if (current + step < 0 || current + step >= pictures.length) return turn(step);
  anchor = current + step;
  go(current + step);
}

/** To the later or earlier page. */
function turn(step) {
  const indices = pictures.map((one) => one.data.index);
  if (step > 0 && first + pictures.length < matching) load({ from: Math.max(...indices) + 1 });
  else if (step < 0 && first > 0) load({ before: Math.min(...indices), last: true });
  else say(step > 0 ? "That was the last picture." : "This is the first picture.");
}

/** The place of the tile above or below the current one. */
function beside(direction) {
  const here = pictures[current].tile.getBoundingClientRect();
  let found = current;
  let nearest = Infinity;
  pictures.forEach(({ tile }, place) => {
    const there = tile.getBoundingClientRect();
    const down = direction * (there.top - here.top);
    if (down < 5) return;
    const far = down * 100 + Math.abs(there.left - here.left);
    if (far < nearest) [nearest, found] = [far, place];
  });
  return found;
}

const selected = () => pictures.filter((one) => one.tile?.ariaSelected === "true");
const targets = () => {
  const many = selected();
  return many.length ? many : pictures.slice(current, current + 1);
};

function select(chosen) {
  for (const one of pictures) one.tile.ariaSelected = String(chosen.includes(one));
  facts();
}

function toggle(place) {
  const one = pictures[place];
  one.tile.ariaSelected = String(one.tile.ariaSelected !== "true");
  anchor = place;
  facts();
  say(`${amount(selected().length)} selected.`);
}

function range(place) {
  select(pictures.slice(Math.min(anchor, place), Math.max(anchor, place) + 1));
  say(`${amount(selected().length)} selected.`);
}

function view(wanted) {
  large = wanted;
  find("grid").hidden = large;
  find("large").hidden = !large;
  find("view").ariaPressed = String(large);
  document.body.classList.toggle("large", large);
  find("probabilities").hidden = true;
  if (large) find("panel").open = true;
  go(current);
}

// ---------------------------------------------------------------- what a person does

const label = (name) => decide(() => ({ action: "label", label: name }));
const accept = () => decide((data) => data.accept ?? {});
function remove() {
  const label = find("reason").value.trim();
  find("reason").value = "";
  decide(() => ({ action: "remove", label }));
}

function showMap() {
  if (!about.predicts) return say("There is no model, so no map.");
  mapped = !(mapped && large);
  find("map").ariaPressed = String(mapped);
  if (large) enlarge();
  else view(true);
}

function help() {
  find("keys").showModal();
}

/** A listener of a button: after a click by pointer, keys act on the picture again. */
function pointed(act) {
  return (event) => {
    act();
    if (event.detail > 0 && !find("keys").open) refocus();
  };
}

/** The buttons of the classes that the text in the field leaves. */
function narrowed() {
  const text = plain(find("find").value.trim().toLowerCase());
  const buttons = [...find("classes").children];
  const name = (button) => plain(button.value.toLowerCase());
  for (const button of buttons) button.hidden = !name(button).includes(text);
  const left = buttons.filter((button) => !button.hidden);
  return left.sort((a, b) => name(b).startsWith(text) - name(a).startsWith(text));
}

function onFind(event) {
  if (event.type === "input") {
    const left = narrowed();
    if (find("find").value) {
      const first = left.length ? `Enter takes ${plain(left[0].value)}.` : "";
      say(`${left.length} ${left.length === 1 ? "class" : "classes"}. ${first}`);
    }
    return;
  }
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  const [button] = find("find").value ? narrowed() : [];
  if (event.key === "Enter" && !button) return say("No such class.");
  find("find").value = "";
  narrowed();
  refocus();
  if (event.key === "Enter") label(button.value);
}

const SINGLE = {
  x: remove,
  u: undo,
  m: showMap,
  g: () => view(!large),
  "?": help,
  "/": () => {
    find("panel").open = true;
    find("find").focus();
  },
};

function onKey(event) {
  const { key, shiftKey } = event;
  if (!about || find("keys").open || event.target.closest("input:not([type=checkbox]), select")) return;
  const inPictures = !event.target.closest("button, summary, a, input");
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (key.toLowerCase() !== "a" || !inPictures || large || event.altKey) return;
    event.preventDefault();
    select(pictures);
    return say(`${amount(selected().length)} selected.`);
  }
  const act = actionOf(key, shiftKey, inPictures);
  if (!act) return;
  event.preventDefault();
  act();
}

function actionOf(key, shift, inPictures) {
  const to = (place) => () => {
    if (!pictures.length) return;
    const wanted = typeof place === "function" ? place() : place;
    if (!shift) anchor = wanted;
    go(wanted);
    if (shift) range(wanted);
  };
  const step = (by) => {
    if (!shift) return () => move(by);
    return to(() => Math.min(Math.max(0, current + by), pictures.length - 1));
  };
  if (key === "PageDown") return () => turn(1);
  if (key === "PageUp") return () => turn(-1);
  if (key === "ArrowRight") return step(1);
  if (key === "ArrowLeft") return step(-1);
  if (key === "Delete") return remove;
  if (inPictures) {
    if (key === "Enter") return accept;
    if (key === "Escape") return () => (large ? view(false) : (select([]), say("Nothing selected.")));
    if (key === " " && pictures.length && !large) return () => (shift ? range(current) : toggle(current));
    if (!large) {
      if (key === "ArrowDown") return to(() => beside(1));
      if (key === "ArrowUp") return to(() => beside(-1));
      if (key === "Home") return to(0);
      if (key === "End") return to(() => pictures.length - 1);
    }
  }
  if (key.length > 1 || !find("single").checked) return null;
  if (key in SINGLE) return SINGLE[key];
  const place = about.keys.indexOf(key.toLowerCase());
  return place < 0 ? null : () => label(about.classes[place]);
}

document.addEventListener("keydown", onKey);
find("find").addEventListener("keydown", onFind);
find("find").addEventListener("input", onFind);
find("reason").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  refocus();
  if (event.key === "Enter") remove();
});
for (const [id, act] of Object.entries({ accept, remove, undo, view: () => view(!large), map: showMap })) {
  find(id).addEventListener("click", pointed(act));
}
find("previous").addEventListener("click", () => stepBy(-1, find("previous")));
find("next").addEventListener("click", () => stepBy(1, find("next")));
find("back").addEventListener("click", () => first > 0 && turn(-1));
find("forth").addEventListener("click", () => turn(1));
find("help").addEventListener("click", help);
find("several").addEventListener("click", () => {
  const on = find("several").ariaPressed !== "true";
  find("several").ariaPressed = String(on);
  if (!on) select([]);
  say(on ? "A tap or click selects." : "Nothing selected.");
});
for (const id of ["group", "show"]) find(id).addEventListener("change", () => load({ from: 0 }));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  refocus();
});
window.addEventListener("beforeunload", (event) => {
  if (unsaved) event.preventDefault();
});
if (window.matchMedia("(max-width: 50rem)").matches) {
  find("panel").open = false;
  say(""); // no keyboard: the buttons do it all
}
start().catch((error) => trouble(said(error)));

/** The buttons beside the large picture; the focus stays on them. */
function stepBy(step, button) {
  move(step);
  button.focus();
}
