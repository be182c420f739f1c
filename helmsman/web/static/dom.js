// Elements from data. Strings become text nodes: nothing that comes from the cluster is ever read as markup.

/**
 * @param {string} tag e.g. "p" or "p.note"
 * @param {Record<string, any>} [props] attributes; functions are listeners (`onclick`); false and null are left out
 * @param {...(Node | string | null | undefined)} children
 */
export function h(tag, props = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** @param {string} id */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no #${id}`);
  return element;
}

let lastId = 0;
/** An id that nothing else on the page has, to tie a label to its field. */
export const freshId = () => `h${++lastId}`;
