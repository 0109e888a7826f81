import { describe, expect, test } from 'vitest';
import { ageAt, clock, dicomDate, personName, personNumber, size } from './format';

describe('a person name', () => {
  test('is split into family and given names', () => {
    expect(personName('Lindström-Håkansson^Alma^Maria')).toEqual({
      family: 'Lindström-Håkansson',
      given: 'Alma Maria',
    });
  });

  test('comes from the first group that holds one', () => {
    expect(personName('=山田^太郎')).toEqual({ family: '山田', given: '太郎' });
  });

  test('may be empty', () => {
    expect(personName('^^^^')).toEqual({ family: '', given: '' });
  });
});

test('a person number of twelve digits has a hyphen, other identifiers stay as they are', () => {
  expect(personNumber('198001029819')).toBe('19800102-9819');
  expect(personNumber('TEST-4711')).toBe('TEST-4711');
  expect(personNumber('8001029819')).toBe('8001029819');
});

test('an age counts whole years, from the birthday on', () => {
  expect(ageAt('1980-01-02', '2024-01-01')).toBe(43);
  expect(ageAt('1980-01-02', '2024-01-02')).toBe(44);
  expect(ageAt('2024-02-29', '2025-02-28')).toBe(0);
  expect(ageAt(null, '2024-01-02')).toBeNull();
  expect(ageAt('2025-01-01', '2024-01-02')).toBeNull();
});

test('sizes have three digits and the unit that suits them', () => {
  expect(size(52_437_000, 'sv-SE').replace(/\s/g, ' ')).toBe('52,4 MB');
  expect(size(999_600, 'en-GB').replace(/\s/g, ' ')).toBe('1 MB');
  expect(size(1_200_000_000_000, 'sv-SE').replace(/\s/g, ' ')).toBe('1,2 TB');
});

test('times of day are short, DICOM dates get their hyphens', () => {
  expect(clock('13:05:00')).toBe('13:05');
  expect(clock(null)).toBe('');
  expect(dicomDate('20240305')).toBe('2024-03-05');
  expect(dicomDate('')).toBe('');
});
