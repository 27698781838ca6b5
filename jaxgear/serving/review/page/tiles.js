"use strict";
// The grid: a tile for each picture of the page.

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

function stateOf({ label, current, removed, done, by, note }) {
  const was = label && label !== current ? `${plain(label)} → ` : "";
  if (removed && note === "box corrected") return "✓ box corrected";
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
