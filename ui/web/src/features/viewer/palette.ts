/** Tables of colours, modality and VOI values (PS3.3 §C.7.9, §C.11), as numbers. */
import { type DicomDataset, itemsOf, numbersOf, readBulkData, textOf } from '../../lib/dicomweb';

const PHOTOMETRIC_INTERPRETATION = '00280004';
export const MODALITY_LUT_SEQUENCE = '00283000';
export const VOI_LUT_SEQUENCE = '00283010';
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

/** Puts the entries of one table, wherever they lie, into the data set as numbers; raises Problem. */
async function readTable(dataset: DicomDataset, descriptor: string, data: string): Promise<void> {
  const attribute = dataset[data];
  if (!attribute || attribute.Value) return;
  const bytes = attribute.BulkDataURI
    ? await readBulkData(attribute.BulkDataURI, 'application/octet-stream')
    : Uint8Array.from(atob(attribute.InlineBinary ?? ''), (byte) => byte.charCodeAt(0));
  dataset[data] = { vr: 'US', Value: tableEntries(bytes, numbersOf(dataset, descriptor)) };
}

/**
 * Puts the entries of the tables of colours, and of modality and VOI values, into the data sets
 * that have them; raises Problem.
 */
export async function readTables(datasets: DicomDataset[]): Promise<void> {
  await Promise.all(
    datasets.flatMap((dataset) => [
      ...(textOf(dataset, PHOTOMETRIC_INTERPRETATION) === 'PALETTE COLOR'
        ? TABLES.map(({ descriptor, data }) => readTable(dataset, descriptor, data))
        : []),
      ...[MODALITY_LUT_SEQUENCE, VOI_LUT_SEQUENCE].flatMap((sequence) =>
        itemsOf(dataset, sequence)
          .slice(0, 1)
          .map((item) => readTable(item, '00283002', '00283006')),
      ),
    ]),
  );
}
