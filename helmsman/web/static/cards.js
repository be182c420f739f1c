// What waits for the person: plan cards and questions. A card is open until the stream says who decided.
import { editor } from "./editor.js";
import { freshId, h } from "./dom.js";
import { from, t } from "./strings.js";
import { plan } from "./views.js";

/**
 * @typedef {{question: string, digest: string, calls: any[], moved: boolean}} PlanShown
 * @typedef {(verdict: {decision: string, comment?: string, edited?: object}) => Promise<void>} Decide
 */

export class PlanCard {
  /** @param {PlanShown} shown @param {Decide} decide throws what the person should read */
  constructor(shown, decide) {
    this.shown = shown;
    this.decide = decide;
    this.word = shown.calls.map((call) => call.plan.type_word).find(Boolean) ?? null;
    this.status = h("p.status", {}, t("waiting"));
    this.error = h("p.error", { role: "alert" });
    this.actions = h("div.actions");
    this.heading = h("h2", {}, t("plan"));
    this.element = h(
      shown.calls.some((call) => call.risk === "D") ? "section.card.danger" : "section.card",
      { role: "group", "aria-label": t("plan"), tabindex: "-1" },
      h("header", {}, this.heading, this.status),
      shown.moved ? h("p.moved", {}, t("moved")) : null,
      ...shown.calls.map((call) => h("div.call-plan", {}, plan(call.plan), exactCall(call))),
      this.actions,
      this.error,
    );
    this.offer();
  }

  /** The four answers. */
  offer() {
    const approve = h("button", { type: "button", class: "approve", onclick: () => this.answer({ decision: "yes" }) }, t("approve"));
    const word = this.word ? typeWord(this.word, approve) : null;
    const reject = h("button", { type: "button", onclick: () => this.answer({ decision: "no" }) }, t("reject"));
    const comment = h("button", { type: "button", class: "quiet", onclick: () => this.askComment() }, t("rejectComment"));
    const edit = h("button", { type: "button", class: "quiet", onclick: () => this.askEdit() }, t("edit"));
    this.actions.replaceChildren(...[word, approve, reject, comment, edit].filter(Boolean));
  }

  askComment() {
    const id = freshId();
    const field = h("textarea", { id, rows: "2", maxlength: "5000" });
    const send = () => this.answer({ decision: "no", comment: field.value.trim() || undefined });
    this.ask(h("label", { for: id }, t("comment")), field, t("sendComment"), send);
    field.focus();
  }

  askEdit() {
    const edited = editor(this.shown.calls);
    const send = () => {
      const result = edited.read();
      if (result.error) this.error.textContent = result.error;
      else this.answer({ decision: "edit", edited: result.edited });
    };
    this.ask(h("p.note", {}, t("editHint")), edited.element, t("preview"), send);
    edited.element.querySelector("input")?.focus();
  }

  ask(label, field, words, send) {
    const back = () => {
      this.error.textContent = "";
      this.offer();
      this.actions.querySelector("button")?.focus();
    };
    const form = h(
      "form.more",
      { onsubmit: (event) => (event.preventDefault(), send()) },
      label,
      field,
      h("div.row", {}, h("button", { type: "submit", class: "primary" }, words), h("button", { type: "button", class: "quiet", onclick: back }, t("cancel"))),
    );
    form.addEventListener("keydown", (event) => event.key === "Escape" && (event.stopPropagation(), back()));
    this.actions.replaceChildren(form);
    form.scrollIntoView({ block: "nearest" });
  }

  async answer(verdict) {
    this.error.textContent = "";
    this.lock(true);
    try {
      await this.decide({ question: this.shown.question, digest: this.shown.digest, ...verdict });
    } catch (problem) {
      this.error.textContent = problem.message;
      this.lock(false);
    }
  }

  lock(locked) {
    this.element.inert = locked;
    this.element.setAttribute("aria-busy", String(locked));
  }

  /** @param {{decision: string, comment?: string, face: string, automatic?: boolean}} decided */
  close(decided) {
    const words = decided.automatic ? t("decided_auto") : t(`decided_${decided.decision}`, { where: from(decided.face) });
    this.settle(words, decided.decision);
    if (decided.comment) this.element.append(h("blockquote", {}, decided.comment));
  }

  supersede() {
    this.settle(t("superseded"), "edit");
  }

  settle(words, decision) {
    const focused = this.element.contains(document.activeElement);
    this.lock(false);
    this.heading.textContent = t("planClosed");
    this.status.textContent = words;
    this.element.classList.add("closed", `closed-${decision}`);
    this.actions.remove();
    this.error.remove();
    if (focused) this.element.focus();
  }
}

function exactCall(call) {
  const lines = Object.entries(call.arguments).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
  return h("details", {}, h("summary", {}, t("exactCall")), h("pre", { tabindex: "0" }, [call.tool, ...lines].join("\n  ")));
}

/** A field that holds `approve` back until the word stands in it. */
function typeWord(word, approve) {
  const id = freshId();
  const check = (event) => (approve.disabled = event.target.value.trim() !== word);
  const field = h("input", { id, autocomplete: "off", autocapitalize: "off", spellcheck: "false", oninput: check });
  approve.disabled = true;
  const [before, after] = t("typeWord").split("{word}");
  return h("div.type-word", {}, h("label", { for: id }, before, h("code", {}, word), after), field);
}

export class QuestionCard {
  /** @param {{text: string, choices: string[]}} asked @param {(choice: string) => void} choose */
  constructor(asked, choose) {
    const button = (choice) => h("li", {}, h("button", { type: "button", onclick: () => choose(choice) }, choice));
    this.choices = asked.choices?.length ? h("ol.choices", {}, ...asked.choices.map(button)) : null;
    this.element = h("section.card.question", { role: "group", "aria-label": asked.text, tabindex: "-1" }, h("p", {}, asked.text), this.choices);
  }

  close() {
    for (const button of this.element.querySelectorAll("button")) button.disabled = true;
    this.element.classList.add("closed");
  }
}
