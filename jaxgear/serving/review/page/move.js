"use strict";
// Moving between pictures and pages, and selecting.

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
