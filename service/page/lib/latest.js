/** Runs work that is requested faster than it can be done: one run at a time, always for the latest state. @module */

export class LatestOnly {
  /** @param {() => Promise<void>} work reads the latest state itself */
  constructor(work) {
    this.work = work;
    this.busy = false;
    this.asked = false;
  }

  /** Run the work; if it is running, run it once more afterwards. */
  ask() {
    this.asked = true;
    if (!this.busy) void this.run();
  }

  async run() {
    this.busy = true;
    try {
      while (this.asked) {
        this.asked = false;
        await this.work();
      }
    } finally {
      this.busy = false;
    }
  }
}

/** The rate of an event over about the last second. */
export class Rate {
  constructor() {
    /** @type {number[]} */
    this.times = [];
  }

  /**
   * Count an event.
   * @param {number} now milliseconds
   * @returns {number} times a second
   */
  count(now) {
    this.times = [...this.times.filter((time) => now - time < 1000), now];
    const span = now - this.times[0];
    return span > 200 ? ((this.times.length - 1) * 1000) / span : 0;
  }
}
