// The five views of tools/views.py as elements.
import { freshId, h } from "./dom.js";
import { t } from "./strings.js";

const cell = (data) => h("span", { class: `tone-${data.tone ?? "plain"}` }, data.text);

/** A wide thing that scrolls by itself, also by keyboard. */
const scroller = (label, inner) => h("div.scroller", { role: "region", "aria-label": label, tabindex: "0" }, inner);

function table(view) {
  const align = (i) => (view.align?.[i] === "right" ? "right" : null);
  const head = view.columns.map((name, i) => h("th", { scope: "col", class: align(i) }, name));
  const row = (cells) =>
    h("tr", {}, ...cells.map((data, i) => h(i ? "td" : "th", { scope: i ? null : "row", class: align(i) }, cell(data))));
  const body = view.rows.map(row);
  const grid = h("table", {}, h("caption.unseen", {}, view.title), h("thead", {}, h("tr", {}, ...head)), h("tbody", {}, ...body));
  return h(
    "section.view.table",
    {},
    h("h3", {}, view.title),
    view.rows.length ? scroller(t("table", { title: view.title }), grid) : null,
    view.note ? h("p.note", {}, view.note) : null,
  );
}

function facts(view) {
  const pairs = view.facts.flatMap(([label, value]) => [h("dt", {}, label), h("dd", {}, cell(value))]);
  return h("section.view.facts", {}, h("h3", {}, view.title), h("dl", {}, ...pairs));
}

function text(view) {
  const tone = `tone-${view.tone ?? "plain"}`;
  const title = view.title ? h("h3", { class: tone }, view.title) : null;
  const inTone = { class: title ? null : tone };
  const body = view.code
    ? h("pre", { ...inTone, tabindex: "0", role: "region", "aria-label": view.title ?? t("conversation") }, view.text)
    : h("p", inTone, view.text);
  return h("section.view.text", {}, title, view.text ? body : null);
}

function chart(view) {
  const top = view.maximum ?? Math.max(...view.bars.map(([, value]) => value), 0);
  const bars = view.bars.map(([label, value, words]) => {
    const fill = h("span.fill");
    fill.style.inlineSize = `${top > 0 ? Math.max(0, Math.min(100, (value / top) * 100)) : 0}%`;
    return h("tr", {}, h("th", { scope: "row" }, label), h("td.track", { "aria-hidden": "true" }, fill), h("td.right", {}, words));
  });
  const grid = h("table", {}, h("caption.unseen", {}, `${view.title} (${view.unit})`), h("tbody", {}, ...bars));
  return h("section.view.chart", {}, h("h3", {}, view.title, " ", h("span.unit", {}, view.unit)), grid);
}

/** Title, effects, warnings and undo of one planned call. */
export function plan(view) {
  const heading = freshId();
  const line = (effect) =>
    h(
      "li",
      { class: `tone-${effect.tone ?? "plain"}` },
      effect.text,
      effect.owner ? h("span.owner", {}, t("ownedBy", { owner: effect.owner })) : null,
    );
  return h(
    "section.view.planned",
    { "aria-labelledby": heading },
    h("h3", { id: heading }, h(`span.risk.risk-${view.risk}`, {}, t(`risk_${view.risk}`)), " ", view.title),
    view.effects?.length ? h("ul.effects", {}, ...view.effects.map(line)) : null,
    view.warnings?.length ? h("ul.warnings", {}, ...view.warnings.map((words) => h("li", {}, words))) : null,
    h(view.undo ? "p.undo" : "p.undo.none", {}, view.undo ?? t("noUndo")),
  );
}

const renderers = { table, facts, text, chart, plan };

/** @param {{view: string}} view one of the five */
export function render(view) {
  const renderer = renderers[view.view];
  return renderer ? renderer(view) : h("pre", {}, JSON.stringify(view, null, 2));
}
