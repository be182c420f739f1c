// The page: which thread is open, the input, and the stream between them.
import { Problem, api, follow } from "./api.js";
import { byId, h } from "./dom.js";
import { suggestNames } from "./names.js";
import { examples, t, translate } from "./strings.js";
import { Transcript } from "./transcript.js";

const LIST_REFRESH_MS = 15_000;

translate(document);

const log = byId("conversation");
const line = /** @type {HTMLTextAreaElement} */ (byId("line"));
const transcript = new Transcript(byId("turns"), { decide, choose: say, changed });
const clearNames = suggestNames(line, byId("suggestions"), api.names);

let thread = /** @type {string | null} */ (null);
let close = () => {};
let sending = false;
/** Whether the person looks at the end of the conversation, and wants to go on doing so. */
let following = true;

// ── threads ─────────────────────────────────────────────────────────────────────────────────────

/** The address says which thread is open: #/ID; `#/` is one that begins with its first line. */
function openFromAddress() {
  const wanted = decodeURIComponent(location.hash.slice(2)) || null;
  if (wanted !== thread || !wanted) open(wanted);
}

function open(id) {
  close();
  close = () => {};
  thread = id;
  transcript.clear();
  notice("");
  toggleThreads(false);
  if (id) close = follow(id, { event: happened, live, problem: (detail) => transcript.problem(detail), state: connection });
  else connection("");
  changed();
  listThreads();
  line.focus();
}

function happened(event) {
  transcript.apply(event);
  if (transcript.live && ["user_said", "turn_ended"].includes(event.body.kind)) listThreads();
}

function live() {
  transcript.live = true;
  changed();
  log.scrollTop = log.scrollHeight;
}

async function listThreads() {
  const threads = await api.threads().catch(() => null);
  if (!threads) return null;
  const item = ({ id, title, updated }) =>
    h("li", {}, h("a", { href: `#/${encodeURIComponent(id)}`, "aria-current": id === thread && "page" }, h("span.title", {}, title || t("untitled")), when(updated)));
  byId("thread-list").replaceChildren(...(threads.length ? threads.map(item) : [h("li.none", {}, t("noThreads"))]));
  return threads;
}

function when(iso) {
  const at = new Date(iso);
  if (Number.isNaN(at.getTime())) return null;
  const today = at.toDateString() === new Date().toDateString();
  const style = today ? { hour: "2-digit", minute: "2-digit" } : { month: "short", day: "numeric" };
  return h("time", { datetime: iso }, new Intl.DateTimeFormat(document.documentElement.lang, style).format(at));
}

function toggleThreads(shown) {
  document.body.classList.toggle("threads-shown", shown);
  byId("show-threads").setAttribute("aria-expanded", String(shown));
}

// ── what a person does ──────────────────────────────────────────────────────────────────────────

/** Send a line, in a new thread where none is open. The text comes back to the input when it is refused. */
async function say(text) {
  if (!text.trim() || sending || transcript.working) return;
  sending = true;
  notice("");
  line.value = "";
  fit();
  clearNames();
  changed();
  try {
    if (!thread) await begin();
    await api.send(thread, text);
  } catch (problem) {
    line.value ||= text;
    fit();
    report(problem);
  } finally {
    sending = false;
    changed();
  }
}

async function begin() {
  const { id } = await api.newThread();
  open(id);
  history.pushState(null, "", `#/${encodeURIComponent(id)}`);
}

async function decide(verdict) {
  await api.decide(thread, verdict);
}

async function stop() {
  if (thread && transcript.working) await api.stop(thread).catch(report);
}

// ── what the page shows ─────────────────────────────────────────────────────────────────────────

let announced = null;

/** After every event: spinner, input, and whatever waits for the person. */
function changed() {
  following ||= sending;
  byId("welcome").hidden = byId("turns").childElementCount > 0 || thread !== null && !transcript.live;
  byId("working").hidden = !transcript.working;
  byId("working-label").textContent = transcript.working ?? "";
  byId("send").disabled = Boolean(transcript.working) || sending;
  log.setAttribute("aria-busy", String(thread !== null && !transcript.live));
  if (following) log.scrollTop = log.scrollHeight;
  byId("more").hidden = following;
  if (transcript.live && transcript.waiting() !== announced) announce(transcript.waiting());
}

/** A new card gets the focus, unless that would take it from a person in the middle of a word. */
function announce(card) {
  const before = announced;
  announced = card;
  document.title = card ? `● ${t("needsYou")} · Helmsman` : "Helmsman";
  if (card && (document.activeElement !== line || !line.value)) card.element.focus({ preventScroll: true });
  if (card) card.element.scrollIntoView({ block: "nearest" });
  else if (before && document.activeElement === before.element) line.focus();
}

function connection(state) {
  byId("connection").textContent = state && state !== "connected" ? t(state) : "";
  document.body.dataset.connection = state;
  if (state === "signedOut") notice(t("signedOut"));
}

const notice = (words) => (byId("notice").textContent = words);

function report(problem) {
  if (!(problem instanceof Problem)) throw problem;
  notice(problem.message);
}

/** As high as its text, up to a third of the window. */
function fit() {
  line.style.blockSize = "auto";
  line.style.blockSize = `${Math.min(line.scrollHeight, innerHeight / 3)}px`;
}

// ── wiring ──────────────────────────────────────────────────────────────────────────────────────

/** Enter that ends the composition of a Hangul syllable is not an Enter of ours (229: Safari tells it so). */
const composing = (event) => event.isComposing || event.keyCode === 229;

line.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || composing(event)) return;
  event.preventDefault();
  say(line.value);
});
line.addEventListener("input", fit);
byId("composer").addEventListener("submit", (event) => (event.preventDefault(), say(line.value)));
byId("stop").addEventListener("click", stop);
document.addEventListener("keydown", (event) => event.key === "Escape" && !composing(event) && stop());
byId("new-thread").addEventListener("click", () => (location.hash === "#/" ? open(null) : (location.hash = "#/")));
byId("show-threads").addEventListener("click", () => toggleThreads(!document.body.classList.contains("threads-shown")));
byId("more").addEventListener("click", () => (log.scrollTop = log.scrollHeight));
log.addEventListener("scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  byId("more").hidden = following;
});
addEventListener("hashchange", openFromAddress);
addEventListener("focus", listThreads);
setInterval(() => document.visibilityState === "visible" && listThreads(), LIST_REFRESH_MS);

byId("examples").replaceChildren(
  ...examples.map((text) => h("li", {}, h("button", { type: "button", onclick: () => say(text) }, text))),
);

// Whoever comes from the terminal wants the conversation that is going on there.
if (!location.hash) {
  const newest = (await listThreads())?.[0];
  if (newest && !location.hash) history.replaceState(null, "", `#/${encodeURIComponent(newest.id)}`);
}
openFromAddress();
