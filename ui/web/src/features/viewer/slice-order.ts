import { type DicomDataset, numberOf, numbersOf, textOf } from '../../lib/dicomweb';

type Vector = [number, number, number];

const POSITION = '00200032';
const ORIENTATION = '00200037';
const INSTANCE_NUMBER = '00200013';
const CONTENT_DATE = '00080023';
const CONTENT_TIME = '00080033';
const SOP_INSTANCE_UID = '00080018';

/** How far two direction cosines may differ and the slices still count as parallel. */
const PARALLEL = 0.01;

function cross(a: Vector, b: Vector): Vector {
  return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
}

function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

function vector(numbers: number[]): Vector | null {
  return numbers.length === 3 ? (numbers as Vector) : null;
}

/**
 * The distance of each instance along the common normal of the slices (PS3.3 §C.7.6.2.1.1), in mm.
 * Null when the instances are not parallel, have no position, or all stand in one place.
 */
function distances(instances: DicomDataset[]): Map<DicomDataset, number> | null {
  const first = numbersOf(instances[0] ?? {}, ORIENTATION);
  const row = vector(first.slice(0, 3));
  const column = vector(first.slice(3, 6));
  if (!row || !column) return null;
  const normal = cross(row, column);
  const along = new Map<DicomDataset, number>();
  for (const instance of instances) {
    const orientation = numbersOf(instance, ORIENTATION);
    const position = vector(numbersOf(instance, POSITION));
    const parallel =
      orientation.length === 6 &&
      orientation.every((cosine, at) => Math.abs(cosine - (first[at] ?? 0)) <= PARALLEL);
    if (!position || !parallel) return null;
    along.set(instance, dot(position, normal));
  }
  return new Set([...along.values()].map((mm) => mm.toFixed(3))).size > 1 ? along : null;
}

/**
 * The instances in the order they are shown: along the normal of parallel slices, else by instance
 * number, content time and UID. Slices at one place keep the order of their instance numbers.
 */
export function sortInstances(instances: DicomDataset[]): DicomDataset[] {
  const along = instances.length > 1 ? distances(instances) : null;
  const when = (instance: DicomDataset) =>
    `${textOf(instance, CONTENT_DATE)}${textOf(instance, CONTENT_TIME)}`;
  return [...instances].sort((one, other) => {
    const byPlace = along ? (along.get(one) ?? 0) - (along.get(other) ?? 0) : 0;
    if (Math.abs(byPlace) > 1e-3) return byPlace;
    const byNumber =
      (numberOf(one, INSTANCE_NUMBER) ?? Number.MAX_SAFE_INTEGER) -
      (numberOf(other, INSTANCE_NUMBER) ?? Number.MAX_SAFE_INTEGER);
    if (byNumber !== 0) return byNumber;
    return (
      when(one).localeCompare(when(other)) ||
      textOf(one, SOP_INSTANCE_UID).localeCompare(textOf(other, SOP_INSTANCE_UID), 'en', {
        numeric: true,
      })
    );
  });
}
