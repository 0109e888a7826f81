import {
  type DicomDataset,
  itemsOf,
  numberOf,
  numbersOf,
  seriesRoot,
  textOf,
  values,
} from '../../lib/dicomweb';
import { VOI_LUT_SEQUENCE } from './palette';
import { sortInstances } from './slice-order';
import { ownWindowOf } from './stored-values';

/** One picture of a series: an instance, or one frame of it. */
export interface Frame {
  /** The name of the picture inside Cornerstone, made of its address. */
  imageId: string;
  dataset: DicomDataset;
  /** From 1; always 1 in an instance of one frame. */
  frameNumber: number;
}

export interface SeriesContent {
  /** In the order they are shown. */
  frames: Frame[];
  /** The instances that are no pictures: reports, structures, curves. */
  documents: DicomDataset[];
  /** Frames per second the maker meant; null when the series is not a film. */
  rate: number | null;
}

const NUMBER_OF_FRAMES = '00280008';
const ROWS = '00280010';
const COLUMNS = '00280011';
const BITS_ALLOCATED = '00280100';
const DEFAULT_RATE = 15;

/** Single-bit pixels, as in segmentations, mark other pictures and are none by themselves. */
function isPicture(dataset: DicomDataset): boolean {
  const bits = numberOf(dataset, BITS_ALLOCATED) ?? 0;
  return Boolean(numberOf(dataset, ROWS) && numberOf(dataset, COLUMNS) && bits > 1);
}

/** Recommended Display Frame Rate, Cine Rate or Frame Time, in this order (PS3.3 §C.7.6.5). */
function rateOf(dataset: DicomDataset): number | null {
  const frames = numberOf(dataset, NUMBER_OF_FRAMES) ?? 1;
  if (frames < 2) return null;
  const rate = numberOf(dataset, '00082144') ?? numberOf(dataset, '00180040');
  if (rate && rate > 0) return rate;
  const frameTime = numberOf(dataset, '00181063') ?? numbersOf(dataset, '00181065')[1];
  return frameTime && frameTime > 0 ? 1000 / frameTime : DEFAULT_RATE;
}

/** Sorts the instances of a series into pictures, in the order they are shown, and the rest. */
export function contentOf(
  datasets: DicomDataset[],
  aeTitle: string,
  study: string,
  series: string,
): SeriesContent {
  const pictures = sortInstances(datasets.filter(isPicture));
  const frames = pictures.flatMap((dataset) => {
    const instance = textOf(dataset, '00080018');
    const address = `${seriesRoot(aeTitle, study, series)}/instances/${instance}/frames`;
    return Array.from(
      { length: Math.max(numberOf(dataset, NUMBER_OF_FRAMES) ?? 1, 1) },
      (_, at) => ({
        imageId: `wadors:${window.location.origin}${address}/${at + 1}`,
        dataset,
        frameNumber: at + 1,
      }),
    );
  });
  return {
    frames,
    documents: sortInstances(datasets.filter((dataset) => !isPicture(dataset))),
    rate: pictures[0] ? rateOf(pictures[0]) : null,
  };
}

/** How the picture was compressed with loss, such as "10:1"; '' when the ratio is not known; null when it was not. */
export function lossOf(dataset: DicomDataset): string | null {
  if (textOf(dataset, '00282110') !== '01') return null;
  const ratio = numbersOf(dataset, '00282112').at(-1);
  return ratio ? `${Number(ratio.toPrecision(3))}:1` : '';
}

/** An item of the frame's functional groups (PS3.3 §C.7.6.16), its own before the shared one. */
function functionalGroup({ dataset, frameNumber }: Frame, tag: string): DicomDataset | undefined {
  const groups = [values(dataset, '52009230')[frameNumber - 1], values(dataset, '52009229')[0]] as (
    | DicomDataset
    | undefined
  )[];
  return groups.map((group) => group && itemsOf(group, tag)[0]).find(Boolean);
}

/** What the picture says, with the values and window of its functional groups as its own. */
export function attributesOf(frame: Frame): DicomDataset {
  return {
    ...frame.dataset,
    ...functionalGroup(frame, '00289145'),
    ...functionalGroup(frame, '00289132'),
  };
}

/** Image Orientation (Patient) of a frame, wherever it stands; empty when there is none. */
export function orientationOf(frame: Frame): number[] {
  const plane = functionalGroup(frame, '00209116') ?? {};
  return (
    [numbersOf(frame.dataset, '00200037'), numbersOf(plane, '00200037')].find(
      (cosines) => cosines.length === 6,
    ) ?? []
  );
}

/** Whether the size of the picture's points in mm is known, in the patient or at the detector. */
export function hasSpacing(frame: Frame): boolean {
  const measures = functionalGroup(frame, '00289110') ?? {};
  return [
    numbersOf(frame.dataset, '00280030'),
    numbersOf(frame.dataset, '00181164'),
    numbersOf(measures, '00280030'),
  ].some((spacing) => spacing.length === 2 && spacing.every((mm) => mm > 0));
}

/** Whether the picture says which values to show, by a window or a table (PS3.3 §C.11.2). */
export function hasWindow(frame: Frame): boolean {
  const attributes = attributesOf(frame);
  return ownWindowOf(attributes) !== null || itemsOf(attributes, VOI_LUT_SEQUENCE).length > 0;
}

/** Whether the window of the picture goes from edge to edge of its width (PS3.3 §C.11.2.1.3.2). */
export function hasExactWindow(frame: Frame): boolean {
  return ownWindowOf(attributesOf(frame))?.kind === 'LINEAR_EXACT';
}

/** Whether lengths on the picture are lengths at the detector, not in the patient (PS3.3 §10.7.1.3). */
export function isProjection(dataset: DicomDataset): boolean {
  return Boolean(dataset['00181164']) && !dataset['00200037'];
}
