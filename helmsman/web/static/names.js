// Names of the cluster that fit the word under the caret, as buttons.
import { h } from "./dom.js";

const FRESH_MS = 20_000;
const AT_MOST = 6;

/**
 * @param {HTMLTextAreaElement} field
 * @param {HTMLElement} place
 * @param {() => Promise<Record<string, any>>} fetchNames
 */
export function suggestNames(field, place, fetchNames) {
  let names = [];
  let fetched = -FRESH_MS;

  const refresh = async () => {
    if (performance.now() - fetched < FRESH_MS) return;
    fetched = performance.now();
    names = flatten(await fetchNames().catch(() => ({})));
  };
  const show = () => {
    const word = wordAtCaret(field);
    const fitting = word.length < 2 ? [] : matches(names, word);
    place.replaceChildren(...fitting.map((name) => h("button", { type: "button", class: "quiet", onclick: () => take(name) }, name)));
  };
  const take = (name) => {
    const start = field.selectionStart - wordAtCaret(field).length;
    field.setRangeText(`${name} `, start, field.selectionStart, "end");
    place.replaceChildren();
    field.focus();
  };

  field.addEventListener("focus", refresh);
  field.addEventListener("input", () => (refresh(), show()));
  return () => place.replaceChildren();
}

const wordAtCaret = (field) => /[^\s,;()"'`]*$/.exec(field.value.slice(0, field.selectionStart))[0];

function flatten(names) {
  return [...new Set(Object.values(names).flatMap((group) => (Array.isArray(group) ? group : Object.values(group))))];
}

/** Those that begin so first, then those that contain it; none when the word is complete. */
function matches(names, word) {
  const sought = word.toLowerCase();
  if (names.some((name) => name.toLowerCase() === sought)) return [];
  const beginning = names.filter((name) => name.toLowerCase().startsWith(sought));
  const containing = names.filter((name) => name.toLowerCase().includes(sought) && !beginning.includes(name));
  return [...beginning, ...containing].slice(0, AT_MOST);
}
