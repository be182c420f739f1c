// The event stream as elements: one method for each kind of event in helmsman/events.py.
import { PlanCard, QuestionCard } from "./cards.js";
import { h } from "./dom.js";
import { from, t } from "./strings.js";
import { render } from "./views.js";

export class Transcript {
  /**
   * @param {HTMLElement} root
   * @param {{decide: (verdict: object) => Promise<void>, choose: (text: string) => void, changed: () => void}} actions
   */
  constructor(root, actions) {
    this.root = root;
    this.actions = actions;
    this.clear();
  }

  clear() {
    this.root.replaceChildren();
    this.turn = null;
    this.prose = null;
    this.asked = null;
    this.answered = false;
    /** Sentences that this turn's results have on the screen already. @type {Set<string>} */
    this.shown = new Set();
    this.live = false;
    /** @type {Map<string, PlanCard>} open plans by question */
    this.plans = new Map();
    this.calls = new Map();
    /** What is being done, for the spinner; null when nothing runs. */
    this.working = null;
  }

  /** @param {{body: {kind: string}}} event */
  apply(event) {
    this[`on_${event.body.kind}`]?.(event.body);
    this.actions.changed();
  }

  /** Whatever is open and waits for the person, or null. */
  waiting() {
    return [...this.plans.values()].at(-1) ?? this.asked;
  }

  on_user_said({ text, face }) {
    this.closeQuestion();
    this.prose = null;
    this.answered = false;
    this.shown.clear();
    const where = face === "web" ? null : h("span.face", {}, from(face));
    this.turn = h("article.turn", {}, h("header.said", {}, h("span.unseen", {}, t("you")), h("p", {}, text), where));
    this.root.append(this.turn);
    this.working = t("thinking");
  }

  on_working({ label }) {
    this.working = label;
  }

  on_words({ delta }) {
    this.prose ??= this.add(h("p.answer", { "aria-busy": "true", "aria-live": "off" }));
    this.prose.append(delta);
  }

  on_plan_shown(shown) {
    this.plans.get(shown.question)?.supersede();
    const card = new PlanCard(shown, this.actions.decide);
    this.plans.set(shown.question, card);
    this.open(card);
  }

  on_asked(asked) {
    this.asked = new QuestionCard(asked, this.actions.choose);
    this.open(this.asked);
  }

  on_decided(decided) {
    const card = this.plans.get(decided.question);
    this.plans.delete(decided.question);
    if (card) card.close(decided);
    else if (decided.automatic) this.add(h("p.note", {}, t("decided_auto")));
    this.working = t("thinking");
  }

  on_call_started(call) {
    this.calls.set(call.id, call);
    this.working = t("doing", { tool: call.tool });
  }

  on_call_ended(call) {
    const known = this.calls.get(call.id);
    this.calls.delete(call.id);
    this.working = t("thinking");
    for (const sentence of sentences(call.view)) this.shown.add(sentence);
    this.add(h(`div.result.result-${call.status}`, {}, render(call.view), h("p.trace", {}, trace(call, known))));
  }

  on_answered({ text, refused }) {
    this.prose?.remove();
    this.prose = null;
    this.answered = true;
    const news = text.split("\n").filter((sentence) => !this.shown.has(sentence.trim())).join("\n").trim();
    if (news) this.add(h(refused ? "p.answer.refused" : "p.answer", {}, news));
  }

  on_turn_ended(ended) {
    this.working = null;
    this.prose?.removeAttribute("aria-busy");
    this.prose = null;
    if (ended.outcome !== "asked") this.closeQuestion();
    if (ended.outcome === "stopped") this.add(stopped(ended.done));
    else if (!this.answered && ["failed", "denied"].includes(ended.outcome)) this.add(h("p.note", {}, t(`outcome_${ended.outcome}`)));
  }

  /** A sentence that is not part of the conversation's store. @param {string} detail */
  problem(detail) {
    this.working = null;
    this.add(h("p.error", { role: "alert" }, detail));
    this.actions.changed();
  }

  open(card) {
    this.working = null;
    this.add(card.element);
  }

  closeQuestion() {
    this.asked?.close();
    this.asked = null;
  }

  add(element) {
    (this.turn ?? this.root).append(element);
    return element;
  }
}

/** What a result says in words, logs left out. */
function sentences(view) {
  const words = view.code ? "" : (view.text ?? "");
  return [view.title ?? "", ...words.split("\n")].map((sentence) => sentence.trim()).filter(Boolean);
}

/** "list_sessions status=running · done": which call a result comes from. */
function trace(call, started) {
  const given = Object.entries({ ...started?.arguments, ...call.arguments }).map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`);
  return [[call.tool, ...given].join(" "), t(`status_${call.status}`), call.audit_id].filter(Boolean).join(" · ");
}

function stopped(done) {
  const list = done?.length ? h("ul", {}, ...done.map((sentence) => h("li", {}, sentence))) : null;
  return h("div.stopped", {}, h("p", {}, t("outcome_stopped"), " ", t(list ? "alreadyDone" : "nothingDone")), list);
}
