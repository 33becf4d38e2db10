// What is under a pressed button or finger stays: an element that is replaced before the release loses the click.

const LONGEST_MS = 2000; // a release can be lost, as to a menu

let pressed = Promise.resolve();
let release = () => {};

addEventListener("pointerdown", () => {
  release();
  pressed = new Promise((done) => { release = done; setTimeout(done, LONGEST_MS); });
}, true);
// The click comes after the release, within the same task.
for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => setTimeout(release), true);

/** Wait until nothing is pressed. */
export function released() {
  return pressed;
}
