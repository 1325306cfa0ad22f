// Texts that change: the smallest piece that differs, and edits that wait for their turn.

// The one piece of `before` to replace so that it becomes `after`; null where they are the same.
export function difference(before, after) {
  if (before === after) return null;
  const most = Math.min(before.length, after.length);
  let start = 0;
  while (start < most && before[start] === after[start]) start++;
  let end = 0;
  while (end < most - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  return { from: start, to: before.length - end, insert: after.slice(start, after.length - end) };
}

// Sends the newest of what is given, one at a time: the next goes when the last was answered, and `pause` milliseconds
// after the first that was not sent yet, so that a burst is one message and a drag is several. What lies between is
// never sent. Without an answer (a kernel that was restarted) the newest is sent after `patience`.
export class Newest {
  constructor(send, options = {}) {
    const clock = { now: () => performance.now(), later: (f, ms) => setTimeout(f, ms), never: (id) => clearTimeout(id) };
    Object.assign(this, { send, pause: 60, patience: 5000, ...clock, ...options });
    this.seq = 0; // of the last that was given
    this.sent = 0; // of the last that was sent
    this.sentAt = 0;
    this.answered = 0;
    this.waiting = null;
    this.timer = null;
  }

  give(message) {
    this.seq += 1;
    this.waiting = { ...message, seq: this.seq };
    if (this.timer === null) this.schedule(this.pause);
  }

  answer(seq) {
    if (seq <= this.answered) return;
    this.answered = seq;
    if (this.waiting && this.answered >= this.sent) this.schedule(0);
  }

  // Whether Python has not seen the last of it yet: what it says of the texts is older than what is on the screen.
  get isAhead() {
    return this.seq > this.answered;
  }

  schedule(ms) {
    if (this.timer !== null) this.never(this.timer);
    this.timer = this.later(() => this.flush(), ms);
  }

  flush() {
    this.timer = null;
    if (!this.waiting) return;
    const since = this.now() - this.sentAt;
    if (this.sent > this.answered && since < this.patience) return this.schedule(this.patience - since);
    const message = this.waiting;
    this.waiting = null;
    this.sent = message.seq;
    this.sentAt = this.now();
    this.send(message);
  }

  stop() {
    if (this.timer !== null) this.never(this.timer);
    this.timer = this.waiting = null;
  }
}
