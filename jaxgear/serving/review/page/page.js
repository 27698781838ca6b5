"use strict";
// What the page knows, and what it asks the server. The other files share these names.
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

function say(text) {
  find("status").textContent = text;
}

function trouble(text) {
  find("trouble").hidden = !text;
  find("trouble").textContent = text;
}
