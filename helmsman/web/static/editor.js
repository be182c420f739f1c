// A plan's arguments as fields. Texts are edited as they are, everything else as JSON.
import { freshId, h } from "./dom.js";
import { t } from "./strings.js";

/**
 * @param {{id: string, tool: string, arguments: Record<string, any>}[]} calls
 * @returns {{element: HTMLElement, read: () => {edited?: Record<string, object>, error?: string}}}
 */
export function editor(calls) {
  const forms = calls.map(callForm);
  const read = () => {
    try {
      return { edited: Object.fromEntries(forms.map((form, i) => [calls[i].id, form.read()])) };
    } catch (unreadable) {
      return { error: unreadable.message };
    }
  };
  return { element: h("div.editor", {}, ...forms.map((form) => form.element)), read };
}

function callForm(call) {
  const rows = Object.entries(call.arguments).map(([name, value]) => knownRow(name, value));
  const grid = h("div.fields", {}, ...rows.map((row) => row.element));
  const add = () => {
    const row = newRow();
    rows.push(row);
    grid.append(row.element);
    row.element.querySelector("input").focus();
  };
  const more = h("button", { type: "button", class: "quiet", onclick: add }, t("addArgument"));
  const element = h("fieldset", {}, h("legend", {}, h("code", {}, call.tool)), grid, more);
  return { element, read: () => Object.fromEntries(rows.map((row) => row.read()).filter(Boolean)) };
}

function knownRow(name, value) {
  const id = freshId();
  const plain = typeof value === "string";
  const field = h("input", { id, value: value === null ? "" : plain ? value : JSON.stringify(value), autocomplete: "off", spellcheck: "false" });
  const element = h("div.field", {}, h("label", { for: id }, name), field);
  return { element, read: () => (field.value === "" ? null : [name, plain ? field.value : parse(name, field.value)]) };
}

function newRow() {
  const name = h("input", { "aria-label": t("argumentName"), placeholder: t("argumentName"), autocomplete: "off", spellcheck: "false" });
  const value = h("input", { "aria-label": t("argumentValue"), placeholder: t("argumentValue"), autocomplete: "off", spellcheck: "false" });
  const read = () => (name.value.trim() && value.value ? [name.value.trim(), guess(value.value)] : null);
  return { element: h("div.field", {}, name, value), read };
}

function parse(name, text) {
  try {
    return JSON.parse(text);
  } catch {
    throw new Error(t("notJson", { name }));
  }
}

/** A new argument has no type to go by: JSON where it is JSON, else text. */
function guess(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
