"use strict";
// The panel beside the grid, and the large picture.

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
  showBox(one);
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
