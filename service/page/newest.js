/** Work that is asked for faster than it can be done: never two at once, and always the newest. @module */

export class Newest {
  /** @param {() => Promise<void>} work looks at the newest state itself */
  constructor(work) {
    this.work = work;
    this.busy = false;
    this.asked = false;
  }

  /** Do the work, once more if it is under way. */
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

/** How often something happened within the last second or so. */
export class Rate {
  constructor() {
    /** @type {number[]} */
    this.times = [];
  }

  /**
   * It happened.
   * @param {number} now milliseconds
   * @returns {number} times a second
   */
  count(now) {
    this.times = [...this.times.filter((time) => now - time < 1000), now];
    const span = now - this.times[0];
    return span > 200 ? ((this.times.length - 1) * 1000) / span : 0;
  }
}
