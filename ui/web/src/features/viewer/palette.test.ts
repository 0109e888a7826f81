import { expect, test } from 'vitest';
import type { DicomDataset } from '../../lib/dicomweb';
import { readTables, tableEntries } from './palette';

test('sixteen-bit entries are read as little endian', () => {
  expect(tableEntries(new Uint8Array([1, 0, 0, 255]), [2, 0, 16])).toEqual([1, 65_280]);
});

test('eight-bit entries are read byte by byte, without the padding', () => {
  expect(tableEntries(new Uint8Array([7, 8, 9, 0]), [3, 0, 8])).toEqual([7, 8, 9]);
});

test('the inline tables of a palette picture become numbers, other pictures stay as they are', async () => {
  const table = btoa(String.fromCharCode(0, 0, 255, 255));
  const palette: DicomDataset = {
    '00280004': { vr: 'CS', Value: ['PALETTE COLOR'] },
    ...Object.fromEntries(
      ['1', '2', '3'].flatMap((colour) => [
        [`0028110${colour}`, { vr: 'US', Value: [2, 0, 16] }],
        [`0028120${colour}`, { vr: 'OW', InlineBinary: table }],
      ]),
    ),
  };
  const grey: DicomDataset = { '00280004': { vr: 'CS', Value: ['MONOCHROME2'] } };
  await readTables([palette, grey]);
  expect(palette['00281202']?.Value).toEqual([0, 65_535]);
  expect(Object.keys(grey)).toEqual(['00280004']);
});
