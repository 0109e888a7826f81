import { expect, test } from 'vitest';
import { firstPart, numbersOf, textOf } from './dicomweb';

function bytes(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

test('the first part of a multipart answer is cut out, byte by byte', () => {
  const body = bytes(
    '--b\r\nContent-Type: application/pdf\r\n\r\n%PDF\r\n\r\n-\r\n--b\r\n\r\nsecond\r\n--b--\r\n',
  );
  const part = firstPart(body, 'multipart/related; type="application/pdf"; boundary="b"');
  expect(new TextDecoder().decode(part)).toBe('%PDF\r\n\r\n-');
});

test('an answer of one part is the part', () => {
  expect(firstPart(bytes('%PDF'), 'application/pdf')).toEqual(bytes('%PDF'));
});

test('numbers come from numbers and from number strings, anything else is no number', () => {
  const dataset = {
    '00280030': { vr: 'DS', Value: [0.75, '0.8'] },
    '00281050': { vr: 'DS', Value: ['40\\60 HU', null] },
  };
  expect(numbersOf(dataset, '00280030')).toEqual([0.75, 0.8]);
  expect(numbersOf({ '1': { vr: 'DS', Value: [null] } }, '1')).toEqual([]);
  expect(numbersOf(dataset, '00200032')).toEqual([]);
});

test('a person name is read from its alphabetic group', () => {
  expect(
    textOf({ '00100010': { vr: 'PN', Value: [{ Alphabetic: 'Öberg^Karl' }] } }, '00100010'),
  ).toBe('Öberg^Karl');
});
