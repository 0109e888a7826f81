import { expect, test } from 'vitest';
import { frameAfter } from './cine';

test('a film keeps its time: a late screen drops frames', () => {
  expect(frameAfter(0, 0, 25, 100)).toBe(0);
  expect(frameAfter(0, 0.04, 25, 100)).toBe(1);
  expect(frameAfter(0, 1, 25, 100)).toBe(25);
});

test('a film begins where the stack stands and goes round', () => {
  expect(frameAfter(90, 1, 15, 100)).toBe(5);
});

test('an empty series has no frame but the first', () => {
  expect(frameAfter(3, 2, 15, 0)).toBe(0);
});
