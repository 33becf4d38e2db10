// The server: JSON, and one event stream that comes back by itself.

const TOKEN = "kbert.token";

export class ApiError extends Error {
  constructor(status) {
    super(`the server answered ${status}`);
    this.status = status;
  }
}

export function setToken(token) {
  sessionStorage.setItem(TOKEN, token);
}

export function hasToken() {
  return Boolean(sessionStorage.getItem(TOKEN));
}

function headers() {
  const token = sessionStorage.getItem(TOKEN);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

const PATIENCE = 15000; // one request without an answer froze the board under a green "Live"

/** JSON of a path below /v1, or an ApiError; of status 0 where nothing answers, or not to its end. */
export async function get(path, query = {}) {
  const silent = () => { throw new ApiError(0); };
  const answer = await fetch(`/v1/${path}${asQuery(query)}`, { headers: headers(), signal: AbortSignal.timeout(PATIENCE) }).catch(silent);
  if (!answer.ok) throw new ApiError(answer.status);
  return answer.json().catch(silent);
}

function asQuery(query) {
  const pairs = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== "" && one !== null && one !== undefined) pairs.append(name, one);
    }
  }
  const text = pairs.toString();
  return text ? `?${text}` : "";
}

const SILENCE = 40000; // the server beats every 15 s: longer silence is a dead connection

/**
 * Server-sent events through fetch: EventSource could not send a token.
 * `onState` is told "connecting", "live", or "lost" with a status or reason.
 */
export class Stream {
  constructor({ onEvent, onState }) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.round = 0;
    this.wait = 500;
  }

  /** Connect, in place of the connection before. */
  open() {
    this.close();
    this.connect(this.round);
  }

  /** Disconnect without a word. */
  close() {
    this.round += 1;
    this.abort?.abort();
    clearTimeout(this.timer);
  }

  async connect(round) {
    const abort = (this.abort = new AbortController());
    let problem = null;
    this.onState("connecting");
    const watchdog = setTimeout(() => abort.abort(), PATIENCE); // until the headers are there
    try {
      const answer = await fetch("/v1/stream", { headers: headers(), signal: abort.signal });
      clearTimeout(watchdog);
      if (!answer.ok) throw new ApiError(answer.status);
      if (round !== this.round) return;
      this.onState("live");
      this.wait = 500;
      problem = await this.read(answer.body.getReader(), abort);
    } catch (error) {
      problem = error instanceof ApiError ? error.status : "network";
    } finally {
      clearTimeout(watchdog);
    }
    if (round !== this.round) return;
    this.onState("lost", problem);
    if (round !== this.round) return; // closed by whoever was told
    this.timer = setTimeout(() => this.connect(round), this.wait);
    this.wait = Math.min(this.wait * 2, 8000);
  }

  async read(reader, abort) {
    const decoder = new TextDecoder();
    let buffer = "";
    let last = null;
    for (;;) {
      const watchdog = setTimeout(() => abort.abort(), SILENCE);
      const { done, value } = await reader.read().finally(() => clearTimeout(watchdog));
      if (done) return last;
      buffer += decoder.decode(value, { stream: true });
      const blocks = buffer.split("\n\n");
      buffer = blocks.pop();
      for (const block of blocks) {
        let kind = "";
        let data = "";
        for (const line of block.split("\n")) {
          if (line.startsWith("event: ")) kind = line.slice(7);
          else if (line.startsWith("data: ")) data += line.slice(6);
        }
        if (kind === "error") last = JSON.parse(data).code;
        else if (kind && kind !== "beat") this.onEvent(kind, JSON.parse(data));
      }
    }
  }
}
