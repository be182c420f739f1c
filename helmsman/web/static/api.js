// The routes of helmsman/web/app.py, and nothing else that talks to the server.
import { t } from "./strings.js";

/** What the server refused, with the sentence to show. */
export class Problem extends Error {
  /** @param {number} status @param {string} code @param {string} detail */
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

/** @param {string} path @param {object} [body] with it, a POST */
async function call(path, body) {
  const request = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, request).catch(() => {
    throw new Problem(0, "unreachable", t("unreachable"));
  });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) throw new Problem(401, "not_authenticated", t("signedOut"));
  if (!response.ok) throw new Problem(response.status, answer.code ?? "failed", answer.detail ?? response.statusText);
  return answer;
}

const RETRY_MS = 1000;
const of = (thread) => `/api/threads/${encodeURIComponent(thread)}`;

export const api = {
  threads: () => call("/api/threads"),
  newThread: () => call("/api/threads", {}),
  names: () => call("/api/names"),
  send: (thread, text) => call(`${of(thread)}/send`, { text }),
  decide: (thread, verdict) => call(`${of(thread)}/decide`, verdict),
  stop: (thread) => call(`${of(thread)}/stop`, {}),
};

/**
 * Read a thread's events, first the stored ones, then (after `live`) those that come. A lost connection is taken up
 * again behind the last event that was read.
 * @param {string} thread
 * @param {{event: (event: any) => void, live: () => void, problem: (detail: string) => void, state: (state: string) => void}} on
 * @returns {() => void} closes it
 */
export function follow(thread, on) {
  let after = 0;
  let source = null;
  let again = 0;

  const open = () => {
    source = new EventSource(`${of(thread)}/events?after=${after}`);
    source.onopen = () => on.state("connected");
    source.onmessage = (message) => {
      const event = JSON.parse(message.data);
      after = event.seq;
      on.event(event);
    };
    source.addEventListener("live", () => on.live());
    source.addEventListener("problem", (message) => on.problem(JSON.parse(message.data).detail));
    source.onerror = () => {
      on.state("reconnecting");
      if (source.readyState === EventSource.CLOSED) retry();
    };
  };
  const retry = async () => {
    const refused = await api.threads().then(() => null, (problem) => problem);
    if (refused?.status === 401) on.state("signedOut");
    else again = setTimeout(open, RETRY_MS);
  };

  on.state("connecting");
  open();
  return () => {
    clearTimeout(again);
    source.close();
  };
}
