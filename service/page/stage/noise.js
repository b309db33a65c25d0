/** Seeded random disturbances, so that a shared link shows the same picture. @module */

/**
 * A generator of numbers from 0 to 1 (mulberry32, Tommy Ettinger 2017).
 * @param {number} seed
 * @returns {() => number}
 */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/**
 * Add nearly Gaussian noise to pixels: the sum of three uniform numbers.
 * @param {Uint8ClampedArray} pixels RGBA
 * @param {number} spread standard deviation in grey levels
 * @param {number} seed
 */
export function addNoise(pixels, spread, seed) {
  const next = random(seed);
  for (let index = 0; index < pixels.length; index += 4) {
    const noise = (next() + next() + next() - 1.5) * 2 * spread;
    pixels[index] += noise;
    pixels[index + 1] += noise;
    pixels[index + 2] += noise;
  }
}

/**
 * Random patches of a picture for clutter. Numbers are shares of the sides of the picture and of the stage.
 * @param {number} count
 * @param {number} seed
 * @returns {{from: [number, number], to: [number, number], side: number}[]}
 */
export function pieces(count, seed) {
  const next = random(seed);
  return Array.from({ length: count }, () => ({
    from: [0.25 + 0.35 * next(), 0.25 + 0.35 * next()],
    to: [0.85 * next(), 0.85 * next()],
    side: 0.15,
  }));
}
