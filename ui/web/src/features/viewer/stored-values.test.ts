import { expect, test } from 'vitest';
import type { DicomDataset } from '../../lib/dicomweb';
import {
  type BitLayout,
  bitLayoutOf,
  coloursOfEightBits,
  coloursOfPairs,
  lookedUp,
  lookupTableOf,
  ownWindowOf,
  paddingOf,
  rescaled,
  storedValues,
} from './stored-values';

const twelve: BitLayout = { allocated: 16, stored: 12, lowest: 0, signed: false };

function number(vr: string, ...Value: unknown[]) {
  return { vr, Value };
}

test('bits above the value hold an overlay and are left out', () => {
  const samples = new Uint16Array([0x5fff, 0x0123]);
  expect([...storedValues(samples, twelve, 0x5fff)]).toEqual([0x0fff, 0x0123]);
});

test('samples that hold nothing but values are not copied', () => {
  const samples = new Uint16Array([1, 4095]);
  expect(storedValues(samples, twelve, 4095)).toBe(samples);
});

test('a value at the top of its bits is brought down, with its sign', () => {
  const samples = new Uint16Array([0xfff0, 0x7ff0]);
  const signed = { ...twelve, lowest: 4, signed: true };
  expect([...storedValues(samples, signed, 0xfff0)]).toEqual([-1, 2047]);
  expect([...storedValues(samples, { ...twelve, lowest: 4 }, 0xfff0)]).toEqual([4095, 2047]);
});

test('eight bits can have a sign', () => {
  const layout = { allocated: 8, stored: 8, lowest: 0, signed: true };
  expect([...storedValues(new Uint8Array([128, 255, 127]), layout, 255)]).toEqual([-128, -1, 127]);
});

test('the bit layout is that of High Bit, unless that is impossible', () => {
  const dataset: DicomDataset = {
    '00280100': number('US', 16),
    '00280101': number('US', 12),
    '00280102': number('US', 15),
    '00280103': number('US', 1),
  };
  expect(bitLayoutOf(dataset)).toEqual({ ...twelve, lowest: 4, signed: true });
  dataset['00280102'] = number('US', 3);
  expect(bitLayoutOf(dataset)?.lowest).toBe(0);
  expect(bitLayoutOf({ '00280100': number('US', 32) })).toBeNull();
});

test('a slope and an intercept keep whole values whole, and fractions as they are', () => {
  const samples = new Uint16Array([0, 4095]);
  expect(rescaled(samples, 1, -1024, [0, 4095])).toEqual(new Int16Array([-1024, 3071]));
  expect(rescaled(samples, 0.25, 0.5, [0, 4095])).toEqual(new Float32Array([0.5, 1024.25]));
  expect(rescaled(samples, 1, 0, [0, 4095])).toBe(samples);
});

test('a table gives its ends to values beyond them', () => {
  const dataset: DicomDataset = {
    '00283010': number('SQ', {
      '00283002': number('US', 3, 65_534, 8),
      '00283006': number('US', 10, 200, 300),
    }),
  };
  const table = lookupTableOf(dataset, '00283010', true);
  expect(table).toMatchObject({ first: -2, bits: 9 });
  expect(lookupTableOf(dataset, '00283010', false)?.first).toBe(65_534);
  if (table)
    expect([...lookedUp(new Int16Array([-9, -2, -1, 0, 9]), table)]).toEqual([
      10, 10, 200, 300, 300,
    ]);
  expect(lookupTableOf({}, '00283010', false)).toBeNull();
});

test('padding is a range, whichever way round, and signed as the pixels are', () => {
  const dataset = { '00280120': number('US', 63_536), '00280121': number('US', 63_530) };
  const padding = paddingOf(dataset, { ...twelve, signed: true });
  expect([-2007, -2006, -2000, -1999].map((value) => padding?.(value))).toEqual([
    false,
    true,
    true,
    false,
  ]);
  expect(paddingOf({}, twelve)).toBeNull();
});

test('two pixels of YBR_FULL_422 share their colours, also in a row of odd length', () => {
  const samples = new Uint8Array([0, 255, 128, 128, 76, 9, 85, 255]);
  expect([...coloursOfPairs(samples, 1, 3)]).toEqual([0, 0, 0, 255, 255, 255, 254, 0, 0]);
});

test('colours of sixteen bits become colours of eight, by pixel or by plane', () => {
  const samples = new Uint16Array([65_535, 0, 257, 514, 0, 65_535]);
  const form = { bits: 16, planar: false, ybr: false };
  expect([...coloursOfEightBits(samples, form)]).toEqual([255, 0, 1, 2, 0, 255]);
  expect([...coloursOfEightBits(samples, { ...form, planar: true })]).toEqual([
    255, 1, 0, 0, 2, 255,
  ]);
});

test('a window says how it is meant; one narrower than a step goes from edge to edge', () => {
  const window = (width: number, center: number, kind = '') =>
    ownWindowOf({
      '00281050': number('DS', center),
      '00281051': number('DS', width),
      '00281056': number('CS', kind),
    });
  expect(window(400, 40)).toEqual({ width: 400, center: 40, kind: 'LINEAR' });
  expect(window(400, 40, 'SIGMOID')?.kind).toBe('SIGMOID');
  expect(window(0.7, 0.4)?.kind).toBe('LINEAR_EXACT');
  expect(window(1, 40)).toEqual({ width: 1, center: 39.5, kind: 'LINEAR_EXACT' });
  expect(window(0, 40)).toBeNull();
});
