/**
 * Types that the modules share. The browser does not load this file.
 *
 * @typedef {[number, number]} Point x and y, y down.
 * @typedef {{width: number, height: number}} Size
 * @typedef {{x: number, y: number, turn: number, size: number}} Placement Where the picture lies on the stage: its
 *   centre's shift in shares of the stage's width and height, degrees clockwise, and times its fitting size.
 * @typedef {{clutter: number, noise: number, invert: boolean}} Disturbance Pieces, and per cent.
 * @typedef {{source: HTMLCanvasElement | HTMLVideoElement, name: string, sample: string | null}} Picture
 *
 * @typedef {{name: string, kind: string, width: number, height: number}} TransformInfo
 * @typedef {{name: string, version: number, default: boolean, runtime: string, device: string, classes: string[],
 *   input: {width: number, height: number, channels: number}, transforms: TransformInfo[], temperature: number,
 *   accuracy: {dataset: string, pictures: number, accuracy: number} | null}} ModelInfo
 * @typedef {{label: string, index: number, probability: number}} ClassPrediction
 * @typedef {{theta: number[][], corners: Point[], points?: Point[], rectified: {data: string, format: string},
 *   kind?: string}} Look
 * @typedef {{name: string, kind: string} & Look} TransformResult
 * @typedef {{decode: number, queue: number, inference: number, encode: number, total: number}} Timings
 * @typedef {{model: {name: string, version: number}, predictions: ClassPrediction[], transforms?: TransformResult[],
 *   sequence?: {predictions: ClassPrediction[]}[], batch_size: number, timings_ms: Timings} & Look} Answer
 */

export {};
