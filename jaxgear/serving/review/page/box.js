"use strict";
// The box of a crop on its photograph: drawn anew with the pointer, or corrected in numbers.

const SIDES = ["left", "top", "right", "bottom"];
const LEAST = 0.005; // side of a box, as a share of the photograph's
let drawn = null; // {one, box}: the corrected box, of the picture that is shown large

/** The box that a decision on a picture takes along: only a corrected one. */
const boxOf = (one) => (drawn?.one === one ? drawn.box : undefined);

/** Shows the photograph of the current crop with its box; hides both for any other picture. */
function showBox(one) {
  const box = one?.data.box;
  find("crop").hidden = !box;
  if (!box) return;
  if (drawn?.one !== one) drawn = null;
  const address = `photograph/${one.data.index}`;
  if (find("photograph").getAttribute("src") !== address) find("photograph").src = address;
  placeBox(boxOf(one) ?? box);
}

function placeBox(box) {
  const [left, top, right, bottom] = box;
  const places = { left, top, width: right - left, height: bottom - top };
  for (const [name, share] of Object.entries(places)) find("box").style[name] = `${100 * share}%`;
  SIDES.forEach((side, place) => (find(side).value = box[place].toFixed(4)));
}

/** Takes a box over, if it is one; it is saved with the next decision. */
function correct(box) {
  const one = pictures[current];
  const [left, top, right, bottom] = box.map((side) => Math.round(side * 1e4) / 1e4);
  const inside = left >= 0 && top >= 0 && right <= 1 && bottom <= 1; // false for NaN
  if (!inside || !(right - left >= LEAST && bottom - top >= LEAST)) {
    placeBox(boxOf(one) ?? one.data.box);
    return say("No box: left before right, top before bottom, from 0 to 1.");
  }
  drawn = { one, box: [left, top, right, bottom] };
  placeBox(drawn.box);
  say("The box is saved with the class: accept, or choose one. Escape in a field restores it.");
}

function onSide(event) {
  if (event.type === "change") return correct(SIDES.map((side) => find(side).valueAsNumber));
  if (event.key !== "Enter" && event.key !== "Escape") return;
  event.preventDefault();
  if (event.key === "Escape") {
    drawn = null;
    showBox(pictures[current]);
    say("The box is as it was.");
  }
  refocus(); // a field that loses the focus reports its change first
}

function onPointer(event) {
  const frame = find("frame").getBoundingClientRect();
  const share = (at, start, length) => Math.min(1, Math.max(0, (at - start) / length));
  const here = [
    share(event.clientX, frame.left, frame.width),
    share(event.clientY, frame.top, frame.height),
  ];
  if (event.type === "pointerdown") {
    event.preventDefault();
    find("frame").setPointerCapture(event.pointerId);
    find("frame").start = here;
    return;
  }
  const { start } = find("frame");
  if (!start) return;
  const corners = [0, 1].map((axis) => [start[axis], here[axis]].sort((a, b) => a - b));
  const box = [corners[0][0], corners[1][0], corners[0][1], corners[1][1]];
  if (event.type === "pointermove") return placeBox(box);
  find("frame").start = null;
  correct(box);
}

for (const side of SIDES) {
  for (const type of ["change", "keydown"]) find(side).addEventListener(type, onSide);
}
for (const type of ["pointerdown", "pointermove", "pointerup"]) {
  find("frame").addEventListener(type, onPointer);
}
