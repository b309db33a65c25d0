/** Parses the text format of Prometheus, as this service writes it, and computes changes between two scrapes. @module */

/** @typedef {{name: string, labels: Record<string, string>, value: number}} Sample */

const LINE = /^([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([A-Za-z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/**
 * @param {string} text
 * @returns {Sample[]}
 */
export function parse(text) {
  return text.split("\n").flatMap((line) => {
    const found = line.startsWith("#") ? null : LINE.exec(line);
    if (found === null) return [];
    const labels = [...(found[2] ?? "").matchAll(LABEL)].map(([, name, value]) => [name, value.replace(/\\(.)/g, unescape)]);
    return [{ name: found[1], labels: Object.fromEntries(labels), value: Number(found[3].replace("Inf", "Infinity")) }];
  });
}

/**
 * @param {string} _
 * @param {string} character
 */
const unescape = (_, character) => (character === "n" ? "\n" : character);

/** One scrape. */
export class Reading {
  /**
   * @param {Sample[]} samples
   * @param {number} time milliseconds
   */
  constructor(samples, time) {
    this.samples = samples;
    this.time = time;
  }

  /**
   * The samples of a metric with all of the given labels.
   * @param {string} name
   * @param {Record<string, string>} labels
   */
  of(name, labels) {
    const wanted = Object.entries(labels);
    return this.samples.filter((sample) => sample.name === name && wanted.every(([key, value]) => sample.labels[key] === value));
  }

  /**
   * The sum of those samples; 0 if there are none.
   * @param {string} name
   * @param {Record<string, string>} labels
   */
  sum(name, labels) {
    return this.of(name, labels).reduce((total, { value }) => total + value, 0);
  }
}

/**
 * The rate of a counter per second; at least 0, since a restart resets counters.
 * @param {Reading} before
 * @param {Reading} now
 * @param {string} name
 * @param {Record<string, string>} labels
 */
export function perSecond(before, now, name, labels) {
  const seconds = (now.time - before.time) / 1000;
  return seconds > 0 ? Math.max(0, now.sum(name, labels) - before.sum(name, labels)) / seconds : 0;
}

/**
 * The mean of a histogram's observations between two scrapes, else since the start; null if there are none.
 * @param {Reading} before
 * @param {Reading} now
 * @param {string} name
 * @param {Record<string, string>} labels
 */
export function mean(before, now, name, labels) {
  const [sum, count] = [`${name}_sum`, `${name}_count`].map((part) => now.sum(part, labels));
  const [sumBefore, countBefore] = [`${name}_sum`, `${name}_count`].map((part) => before.sum(part, labels));
  if (count > countBefore) return (sum - sumBefore) / (count - countBefore);
  return count > 0 ? sum / count : null;
}
