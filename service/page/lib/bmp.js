/** Encodes pixels as BMP, which is immediate, whereas toBlob() waits until the browser is idle. @module */

const HEADER = 54;

/**
 * @param {ImageData} image its alpha is left out
 * @returns {Uint8Array} 24 bits a pixel, rows from the bottom up, each filled up to four bytes
 */
export function toBmp({ data, width, height }) {
  const row = Math.ceil((width * 3) / 4) * 4;
  const file = new Uint8Array(HEADER + row * height);
  const head = new DataView(file.buffer);
  head.setUint16(0, 0x424d);
  head.setUint32(2, file.length, true);
  head.setUint32(10, HEADER, true);
  head.setUint32(14, 40, true);
  head.setInt32(18, width, true);
  head.setInt32(22, height, true);
  head.setUint16(26, 1, true);
  head.setUint16(28, 24, true);
  head.setUint32(34, row * height, true);
  for (let y = 0; y < height; y++) {
    let to = HEADER + (height - 1 - y) * row;
    for (let from = y * width * 4; from < (y + 1) * width * 4; from += 4) {
      file[to++] = data[from + 2];
      file[to++] = data[from + 1];
      file[to++] = data[from];
    }
  }
  return file;
}
