"use strict";
// Decisions: sent one after another, each with the version of the picture that was seen.

/** Decides on the selected pictures, or the current one. `choose`: picture -> {action, label}. */
function decide(choose) {
  if (loading) return say("The next pictures are still loading: nothing was decided.");
  const chosen = targets();
  const entries = chosen
    .map((one) => ({ one, ticket: one.ticket, box: boxOf(one), ...choose(one.data) }))
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
      pictures: entries.map(({ one, action, label, row, box }) => ({
        index: one.data.index,
        version: one.data.version,
        action,
        ...(label && { label }),
        ...(row && { row }),
        ...(box && action === "label" && entries.length === 1 && { box }),
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
  const ours = ({ one, action, label, box }) => {
    const state = states.get(one.data.index);
    if (!state || state.by !== about.by || state.version <= one.data.version) return false;
    if (action === "remove" || box) return state.removed;
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
