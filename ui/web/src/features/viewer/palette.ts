/** Colour tables of PALETTE COLOR pictures (PS3.3 §C.7.9), as numbers that Cornerstone understands. */
import { type DicomDataset, numbersOf, readBulkData, textOf } from '../../lib/dicomweb';

const PHOTOMETRIC_INTERPRETATION = '00280004';
const TABLES = [
  { descriptor: '00281101', data: '00281201' },
  { descriptor: '00281102', data: '00281202' },
  { descriptor: '00281103', data: '00281203' },
];

/** The entries of a table from its little-endian bytes; a descriptor of 0 entries means 65,536. */
export function tableEntries(bytes: Uint8Array, descriptor: number[]): number[] {
  const count = descriptor[0] || 65_536;
  if (bytes.byteLength < count * 2) return [...bytes.subarray(0, count)];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: count }, (_, at) => view.getUint16(at * 2, true));
}

/** Puts the entries of the colour tables into the data sets that have them; raises Problem. */
export async function readPalettes(datasets: DicomDataset[]): Promise<void> {
  const coloured = datasets.filter(
    (dataset) => textOf(dataset, PHOTOMETRIC_INTERPRETATION) === 'PALETTE COLOR',
  );
  for (const dataset of coloured) {
    for (const { descriptor, data } of TABLES) {
      const attribute = dataset[data];
      if (!attribute || attribute.Value) continue;
      const bytes = attribute.BulkDataURI
        ? await readBulkData(attribute.BulkDataURI, 'application/octet-stream')
        : Uint8Array.from(atob(attribute.InlineBinary ?? ''), (byte) => byte.charCodeAt(0));
      dataset[data] = {
        vr: 'US',
        Value: tableEntries(bytes, numbersOf(dataset, descriptor)),
      };
    }
  }
}
