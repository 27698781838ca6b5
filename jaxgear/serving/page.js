"use strict";
// Everything that comes from a file or the server is shown with textContent: it stays text.

const BARS = 3; // probabilities that are shown at once
const MOST = 16; // pictures at a time; for more there is `jaxgear predict`
const SPLITS = { train: "training", val: "validation", test: "test", left_out: "left-out" };
const find = (id) => document.getElementById(id);
let limit = Infinity; // bytes of one picture, as the server says
let waiting = Promise.resolve(); // the last of the pictures that are being classified

async function start() {
  const model = await (await fetch("model")).json();
  limit = model.max_bytes;
  document.title = `jaxgear: ${model.title}`;
  find("title").textContent = model.title;
  find("classes").textContent = model.classes.join(", ").replaceAll("_", " ");
}

function take(files) {
  const pictures = [...files].slice(0, MOST);
  if (!pictures.length) return say("No file in that: save the picture first, then drop the file.");
  const left = files.length - pictures.length; // counted now: the input empties its list
  // One after another, whatever is dropped meanwhile.
  waiting = waiting.then(() => classifyAll(pictures, left));
}

async function classifyAll(pictures, left) {
  let done = 0;
  say("Classifying…");
  for (const picture of pictures) {
    if (await classify(picture)) done += 1;
  }
  if (pictures.length === 1) return; // its own line says it all
  const rest = left ? ` ${left} more left out: at most ${MOST} at a time.` : "";
  say(`${done} of ${pictures.length} pictures classified.${rest}`);
}

async function classify(file) {
  let answer;
  try {
    if (file.size > limit) throw new Error(`larger than ${Math.floor(limit / 2 ** 20)} MB`);
    const request = { method: "POST", body: file, headers: { "x-jaxgear": "1" } };
    const response = await fetch("predict", request);
    const mute = () => ({ error: `the server answered ${response.status}, try again` });
    answer = await response.json().catch(mute);
    if (!response.ok) throw new Error(answer.error);
  } catch (error) {
    const gone = error instanceof TypeError; // what fetch throws when no server answers
    answer = { error: gone ? "no answer: is the server still running?" : error.message };
  }
  show(file.name || "pasted picture", answer);
  return !answer.error;
}

function show(name, answer) {
  const item = find("result").content.firstElementChild.cloneNode(true);
  const part = (kind) => item.querySelector(`.${kind}`);
  part("name").textContent = name;
  if (answer.error) {
    item.classList.add("failed");
    part("verdict").textContent = `Not classified: ${answer.error}`;
    for (const kind of ["pictures", "second", "flag", "first", "rest"]) part(kind).remove();
    say(`${name} was not classified: ${answer.error}`);
  } else {
    const [first, second] = answer.classes;
    const verdict = answer.refused ? `none ${answer.score.toFixed(2)}` : words(first);
    part("verdict").textContent = verdict;
    if (answer.refused) {
      part("second").textContent =
        `No gear: its score is below ${answer.accept_from.toFixed(2)}. ` +
        `Of the classes most like ${words(first)}.`;
    } else if (second) part("second").textContent = `Second guess: ${words(second)}`;
    part("picture").src = answer.picture;
    part("picture").alt = name;
    if (answer.overlay) part("overlay").src = answer.overlay;
    else part("map").remove();
    if (answer.overlay) part("overlay").alt = `${name}: red where it saw ${plain(first.name)}`;
    if (answer.side) {
      part("flag").hidden = false;
      part("flag").textContent =
        `In the model's own data, in the ${SPLITS[answer.side]} split` +
        (answer.side === "train" ? ": it was trained on this picture, so this proves little." : ".");
    }
    const bars = answer.classes.map(bar);
    part("first").append(...bars.slice(0, BARS));
    part("others").append(...bars.slice(BARS));
    part("rest").hidden = bars.length <= BARS;
    say(`${name}: ${verdict}`);
  }
  find("results").prepend(item);
  find("clear").hidden = false;
}

function bar(entry) {
  const item = document.createElement("li");
  const [label, track, fill, value] = ["span", "span", "div", "span"].map((tag) =>
    document.createElement(tag)
  );
  label.textContent = plain(entry.name);
  track.className = "track";
  fill.className = "fill";
  fill.style.width = `${100 * entry.probability}%`;
  value.className = "value";
  value.textContent = entry.probability.toFixed(2);
  track.append(fill);
  item.append(label, track, value);
  return item;
}

const plain = (name) => name.replaceAll("_", " ");
const words = (entry) => `${plain(entry.name)} ${entry.probability.toFixed(2)}`;
const say = (text) => (find("status").textContent = text);

find("files").addEventListener("change", (event) => {
  take(event.target.files);
  event.target.value = ""; // so that the same file can be chosen again
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("zone").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("zone").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("zone").classList.remove("over");
  take(event.dataTransfer.files);
});
document.addEventListener("paste", (event) => take(event.clipboardData.files));
find("clear").addEventListener("click", () => {
  find("results").replaceChildren();
  find("clear").hidden = true;
  say("");
  find("files").focus();
});
start().catch(() => say("The server does not answer: is it still running?"));
