import { expect, test } from 'vitest';
import type { DicomDataset } from '../../lib/dicomweb';
import { sortInstances } from './slice-order';

const AXIAL = [1, 0, 0, 0, 1, 0];
const CORONAL = [1, 0, 0, 0, 0, -1];

function slice(
  number: number | null,
  position: number[] | null,
  orientation: number[] | null = AXIAL,
): DicomDataset {
  const dataset: DicomDataset = {
    '00080018': { vr: 'UI', Value: [`1.2.${number ?? 0}`] },
  };
  if (number !== null) dataset['00200013'] = { vr: 'IS', Value: [number] };
  if (position) dataset['00200032'] = { vr: 'DS', Value: position };
  if (orientation) dataset['00200037'] = { vr: 'DS', Value: orientation };
  return dataset;
}

function numbers(instances: DicomDataset[]): unknown[] {
  return sortInstances(instances).map((instance) => instance['00200013']?.Value?.[0]);
}

test('parallel slices stand in the order of their places, whatever their numbers say', () => {
  expect(numbers([slice(1, [0, 0, 30]), slice(2, [0, 0, -5]), slice(3, [0, 0, 12.5])])).toEqual([
    2, 3, 1,
  ]);
});

test('the order follows the normal of the slices, not an axis of the patient', () => {
  // The normal of these coronal slices points to the back of the patient.
  expect(
    numbers([
      slice(1, [0, 40, 9], CORONAL),
      slice(2, [0, -10, 5], CORONAL),
      slice(3, [0, 20, 7], CORONAL),
    ]),
  ).toEqual([2, 3, 1]);
});

test('a tilted stack is ordered along its own normal', () => {
  const tilted = [1, 0, 0, 0, Math.cos(0.3), Math.sin(0.3)];
  const at = (mm: number) => [0, -mm * Math.sin(0.3), mm * Math.cos(0.3)];
  expect(
    numbers([slice(1, at(9), tilted), slice(2, at(3), tilted), slice(3, at(6), tilted)]),
  ).toEqual([2, 3, 1]);
});

test('slices of different directions keep the order of their instance numbers', () => {
  expect(numbers([slice(3, [0, 0, 1]), slice(1, [0, 9, 9], CORONAL), slice(2, [0, 0, 5])])).toEqual(
    [1, 2, 3],
  );
});

test('instances without a position keep the order of their instance numbers, unnumbered last', () => {
  expect(numbers([slice(10, null), slice(null, null), slice(2, null)])).toEqual([2, 10, undefined]);
});

test('instances at one place, such as the phases of a heart, keep the order of their numbers', () => {
  expect(numbers([slice(3, [0, 0, 5]), slice(1, [0, 0, 5]), slice(2, [0, 0, 5])])).toEqual([
    1, 2, 3,
  ]);
});

test('sorting leaves the given list as it is', () => {
  const given = [slice(2, null), slice(1, null)];
  sortInstances(given);
  expect(given[0]?.['00200013']?.Value).toEqual([2]);
});
