// One event stream for all windows of a browser. It opens six connections to a server at most: with a stream
// in each window, the sixth stopped them all.

import { Stream } from "./api.js";

const NAME = "kbert.stream"; // of the lock, whose holder has the stream, and of the channel to the others
const REFUSED_MS = 8000;

export class SharedStream {
  /** `onEvent` and `onState` as of a Stream, whichever window has it. */
  constructor({ onEvent, onState }) {
    this.told = { event: onEvent, state: onState };
    this.closed = true;
    this.stream = new Stream({
      onEvent: (...event) => this.tell("event", event),
      onState: (...state) => this.streamIs(...state),
    });
  }

  /** Take part; again after another token. */
  open() {
    this.close();
    this.closed = false;
    this.told.state("connecting");
    if (!navigator.locks) return this.stream.open(); // plain HTTP beyond this machine: a stream for each window
    this.channel = new BroadcastChannel(NAME);
    this.channel.onmessage = ({ data: [what, values] }) => {
      if (what !== "hello") this.told[what](...values);
      else if (this.state) this.tell("state", this.state);
    };
    this.channel.postMessage(["hello"]);
    const { signal } = (this.leaving = new AbortController());
    const hold = () => new Promise((release) => {
      signal.addEventListener("abort", release);
      if (signal.aborted) release();
      else this.stream.open();
    });
    navigator.locks.request(NAME, { signal }, hold).catch((error) => { if (error.name !== "AbortError") throw error; });
  }

  /** Take no part: another window may have the stream. */
  close() {
    this.closed = true;
    this.state = null;
    clearTimeout(this.timer);
    this.stream.close();
    this.leaving?.abort();
    this.channel?.close();
  }

  streamIs(...state) {
    if (state[1] === 401 && this.channel) { // another window may have the token
      this.close();
      this.timer = setTimeout(() => this.open(), REFUSED_MS);
      this.told.state(...state);
      return;
    }
    this.state = state;
    this.tell("state", state);
  }

  tell(what, values) {
    this.channel?.postMessage([what, values]);
    this.told[what](...values);
  }
}
