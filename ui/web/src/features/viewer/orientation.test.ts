import { expect, test } from 'vitest';
import { lettersOf, sideMarks } from './orientation';

const UPRIGHT = { right: [1, 0], down: [0, 1] } as const;
const FLIPPED = { right: [-1, 0], down: [0, 1] } as const;
const QUARTER_TURN = { right: [0, -1], down: [1, 0] } as const;
const axial = { cosines: [1, 0, 0, 0, 1, 0], patientOrientation: [] };
const coronal = { cosines: [1, 0, 0, 0, 0, -1], patientOrientation: [] };

test("an axial slice has the patient's left on the right of the screen and the back below", () => {
  expect(sideMarks(UPRIGHT, axial)).toEqual({ right: 'L', left: 'R', bottom: 'P', top: 'A' });
});

test('a coronal slice has the head on top', () => {
  expect(sideMarks(UPRIGHT, coronal)).toEqual({ right: 'L', left: 'R', bottom: 'F', top: 'H' });
});

test('a flipped image changes its side marks', () => {
  expect(sideMarks(FLIPPED, axial)).toEqual({ right: 'R', left: 'L', bottom: 'P', top: 'A' });
});

test('a quarter turn clockwise moves the marks along', () => {
  expect(sideMarks(QUARTER_TURN, axial)).toEqual({ right: 'A', left: 'P', bottom: 'L', top: 'R' });
});

test('a projection image tells its sides by Patient Orientation, also when flipped', () => {
  const chest = { cosines: [], patientOrientation: ['L', 'F'] };
  expect(sideMarks(UPRIGHT, chest)).toEqual({ right: 'L', left: 'R', bottom: 'F', top: 'H' });
  expect(sideMarks(FLIPPED, chest)?.right).toBe('R');
});

test('an image that does not say gets no marks', () => {
  expect(sideMarks(UPRIGHT, { cosines: [], patientOrientation: [] })).toBeNull();
  expect(sideMarks(UPRIGHT, { cosines: [], patientOrientation: ['X', '9'] })).toBeNull();
});

test('an oblique direction has two letters, the larger share first', () => {
  expect(lettersOf([0.5, 0.8, 0])).toBe('PL');
  expect(lettersOf([-0.1, 0, 0.99])).toBe('H');
});
