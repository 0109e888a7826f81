import { describe, expect, test } from 'vitest';
import { presetAt, presetsOf, rangeOf, windowNumber, windowOf } from './window-presets';

const source = { initial: { width: 300, center: 30 }, range: { lower: -1024, upper: 2047 } };

test('W 400 C 40 shows the values −160 to 239', () => {
  expect(rangeOf({ width: 400, center: 40 })).toEqual({ lower: -160, upper: 239 });
});

test('a window survives the way to a value range and back', () => {
  for (const window of [
    { width: 80, center: 40 },
    { width: 1500, center: -600 },
    { width: 1, center: 0.5 },
  ])
    expect(windowOf(rangeOf(window))).toEqual(window);
});

describe('the presets', () => {
  test.each(['CT', 'MR', 'DX', 'US', 'PT', ''])('of %s fit the keys 1–9', (modality) => {
    const presets = presetsOf(modality);
    expect(presets.length).toBeGreaterThan(0);
    expect(presets.length).toBeLessThanOrEqual(9);
    expect(new Set(presets.map((preset) => preset.key)).size).toBe(presets.length);
  });

  test('begin with the window stored in the image', () => {
    for (const modality of ['CT', 'MR', 'CR'])
      expect(presetsOf(modality)[0]?.window(source)).toEqual(source.initial);
  });

  test('of CT hold the lung window', () => {
    const lung = presetsOf('CT').find((preset) => preset.key === 'preset.lung');
    expect(lung?.window(source)).toEqual({ width: 1500, center: -600 });
  });

  test('of other modalities follow the values of the image', () => {
    const full = presetsOf('MR').find((preset) => preset.key === 'preset.full');
    expect(full?.window({ ...source, range: { lower: 0, upper: 1023 } })).toEqual({
      width: 1024,
      center: 512,
    });
  });
});

test('the window on screen is recognised as its preset, another as none', () => {
  const presets = presetsOf('CT');
  expect(presets[presetAt(presets, source, { width: 1500, center: -600 })]?.key).toBe(
    'preset.lung',
  );
  expect(presetAt(presets, source, { width: 777, center: 12 })).toBe(-1);
});

test('window numbers are whole, but not where the whole range is a few units', () => {
  expect(windowNumber(399.6, 400)).toBe(400);
  expect(windowNumber(2.456, 5)).toBe(2.46);
});
