"use strict";
// Keys and buttons. This file is the last: it starts the page.

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
