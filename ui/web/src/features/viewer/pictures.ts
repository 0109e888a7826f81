/** One picture: Cornerstone fetches and decodes it, its values and colours are made here. */
import { getShouldUseCPURendering, imageLoader, type Types, utilities } from '@cornerstonejs/core';
import dicomImageLoader from '@cornerstonejs/dicom-image-loader';
import { utilities as metadataUtilities } from '@cornerstonejs/metadata';
import { type DicomDataset, numberOf, numbersOf, textOf } from '../../lib/dicomweb';
import { attributesOf, type Frame, hasSpacing } from './frames';
import { MODALITY_LUT_SEQUENCE, VOI_LUT_SEQUENCE } from './palette';
import {
  bitLayoutOf,
  coloursOfEightBits,
  coloursOfPairs,
  extremes,
  lookedUp,
  lookupTableOf,
  ownWindowOf,
  paddingOf,
  rescaled,
  type Samples,
  storedValues,
} from './stored-values';
import { rangeOf, windowOf } from './window-presets';

/** Frames that hold whole allocated samples: of the others a decoder gives the value alone. */
const IN_ALLOCATED_BITS = new Set([
  '1.2.840.10008.1.2',
  '1.2.840.10008.1.2.1',
  '1.2.840.10008.1.2.1.98',
  '1.2.840.10008.1.2.8.1',
  '1.2.840.10008.1.2.5',
]);

const frames = new Map<string, Frame>();

/** The frame a picture was made of; undefined when it was never registered. */
export function frameOf(imageId: string): Frame | undefined {
  return frames.get(imageId);
}

/** Lets Cornerstone load pictures through here. */
export function registerPictures(): void {
  imageLoader.registerImageLoader('wadors', load as never);
}

/** Gives Cornerstone the attributes of the pictures, before any of them is asked for. */
export function registerFrames(registered: Frame[]): void {
  const told = new Map<DicomDataset, DicomDataset>();
  for (const frame of registered) {
    const { imageId, dataset, frameNumber } = frame;
    frames.set(imageId, frame);
    if (!told.has(dataset)) told.set(dataset, asCornerstoneReads(frame));
    const read = told.get(dataset) as DicomDataset;
    dicomImageLoader.wadors.metaDataManager.add(imageId, read as never);
    if (frameNumber === 1) metadataUtilities.addDicomWebInstance(imageId, read);
  }
}

export function forgetFrames(): void {
  frames.clear();
  dicomImageLoader.wadors.metaDataManager.purge();
}

function isDeepColour(dataset: DicomDataset): boolean {
  return numberOf(dataset, '00280002') === 3 && numberOf(dataset, '00280100') === 16;
}

/** The attributes of a frame, put so that Cornerstone leaves alone what it does otherwise than the standard. */
function asCornerstoneReads(frame: Frame): DicomDataset {
  const dataset = { ...frame.dataset };
  const layout = bitLayoutOf(dataset);
  // It takes the low bits for the value, wherever High Bit is.
  if (layout && layout.lowest > 0) {
    dataset['00280101'] = { vr: 'US', Value: [layout.allocated] };
    dataset['00280102'] = { vr: 'US', Value: [layout.allocated - 1] };
  }
  // It does not know Presentation LUT Shape (2050,0020).
  if (textOf(dataset, '20500020') === 'INVERSE')
    dataset['00280004'] = { vr: 'CS', Value: ['MONOCHROME1'] };
  // It turns colours of 16 bits into white.
  if (isDeepColour(dataset)) {
    dataset['00280004'] = { vr: 'CS', Value: ['RGB'] };
    dataset['00280006'] = { vr: 'US', Value: [0] };
  }
  // It knows no other shape of a pixel than that of Pixel Spacing.
  const shape = ['00182010', '00280034']
    .map((tag) => numbersOf(dataset, tag))
    .find((numbers) => numbers.length === 2 && numbers.every((number) => number > 0));
  if (shape && !hasSpacing(frame)) dataset['00280030'] = { vr: 'DS', Value: shape };
  return dataset;
}

function load(imageId: string, options: Record<string, unknown> = {}) {
  const loading = dicomImageLoader.wadors.loadImage(imageId, {
    ...options,
    preScale: { enabled: false },
  } as never);
  return { ...loading, promise: (loading.promise as Promise<Types.IImage>).then(withValues) };
}

function withValues(image: Types.IImage): Types.IImage {
  const frame = frames.get(image.imageId);
  if (!frame) return image;
  const attributes = attributesOf(frame);
  const made = image.color
    ? coloured(image, attributes)
    : isWhole(image)
      ? valued(image, attributes)
      : image;
  // What has no sample for each pixel would leave the picture area unable to draw the next one.
  if (!isWhole(made)) throw new Error('size');
  return made;
}

function isWhole(image: Types.IImage): boolean {
  const held = image.voxelManager?.getScalarDataLength();
  if (held === undefined) return true;
  const samples = held / (image.rows * image.columns);
  return image.color ? samples === 3 || samples === 4 : samples === 1;
}

function coloured(image: Types.IImage, attributes: DicomDataset): Types.IImage {
  const samples = image.getPixelData() as Samples;
  const { rows, columns } = image;
  const photometric = textOf(attributes, '00280004');
  const native = IN_ALLOCATED_BITS.has(syntaxOf(image));
  const ofPairs = 2 * rows * (columns + (columns % 2));
  if (native && photometric === 'YBR_FULL_422' && samples.length === ofPairs)
    return withSamples(image, coloursOfPairs(samples, rows, columns), [0, 255]);
  if (!isDeepColour(attributes)) return image;
  const form = {
    bits: numberOf(attributes, '00280101') ?? 16,
    planar:
      numberOf(attributes, '00280006') === 1 && syntaxOf(image) !== '1.2.840.10008.1.2.5' && native,
    ybr: photometric === 'YBR_FULL',
  };
  return withSamples(image, coloursOfEightBits(samples, form), [0, 255]);
}

function valued(image: Types.IImage, attributes: DicomDataset): Types.IImage {
  const layout = bitLayoutOf(attributes);
  const decoded = image.getPixelData() as Samples;
  let samples = decoded;
  if (layout && IN_ALLOCATED_BITS.has(syntaxOf(image)))
    samples = storedValues(samples, layout, image.maxPixelValue);
  else if (layout?.signed)
    samples = storedValues(samples, { ...layout, lowest: 0 }, image.maxPixelValue);
  const padding = layout && paddingOf(attributes, layout);
  let ends: [number, number] =
    samples === decoded && !padding
      ? [image.minPixelValue, image.maxPixelValue]
      : extremes(samples, padding ?? undefined);

  const signed = Boolean(layout?.signed);
  const modality = lookupTableOf(attributes, MODALITY_LUT_SEQUENCE, signed);
  // A slope of 0 would make one value of all; it is sent by mistake.
  const slope = numberOf(attributes, scaleOf(attributes)) || 1;
  const intercept = numberOf(attributes, '00281052') ?? 0;
  if (modality) {
    samples = lookedUp(samples, modality);
    ends = extremes(samples);
  } else {
    const unchanged = slope === 1 && intercept === 0;
    samples = rescaled(samples, slope, intercept, unchanged ? ends : extremes(samples));
    const scaled = ends.map((end) => end * slope + intercept);
    ends = [Math.min(...scaled), Math.max(...scaled)];
  }

  const own = ownWindowOf(attributes);
  const voi = own ? null : lookupTableOf(attributes, VOI_LUT_SEQUENCE, signed || intercept < 0);
  // Drawn by the processor, such a picture would be black, or have other greys.
  const smooth = samples instanceof Float32Array || own?.kind === 'SIGMOID';
  if (smooth && getShouldUseCPURendering()) throw new Error('processor');
  // Cornerstone's windows are linear from the middle of the first step to that of the last.
  const range = own
    ? rangeOf(own, own.kind === 'LINEAR_EXACT')
    : { lower: ends[0], upper: ends[1] };
  const window = windowOf(range);
  image.windowWidth = window.width;
  image.windowCenter = window.center;
  image.voiLUTFunction = (own?.kind === 'SIGMOID' ? 'SIGMOID' : 'LINEAR') as never;
  if (voi) {
    // The table has no window before it: its values are shown whole, from black to white.
    samples = lookedUp(samples, voi);
    ends = extremes(samples);
    image.windowWidth = 2 ** voi.bits;
    image.windowCenter = 2 ** (voi.bits - 1);
  }
  image.slope = 1;
  image.intercept = 0;
  image.preScale = {
    enabled: true,
    scaled: true,
    scalingParameters: {
      rescaleSlope: slope,
      rescaleIntercept: intercept,
      modality: textOf(attributes, '00080060'),
    },
  } as never;
  return withSamples(image, samples, ends);
}

/** The attribute that holds the size of a step: of a dose it is one of its own (PS3.3 §C.8.8.3). */
function scaleOf(attributes: DicomDataset): string {
  return textOf(attributes, '00080060') === 'RTDOSE' ? '3004000E' : '00281053';
}

function syntaxOf(image: Types.IImage): string {
  return (image as { transferSyntaxUID?: string }).transferSyntaxUID ?? '';
}

function withSamples(
  image: Types.IImage,
  samples: Samples,
  [least, greatest]: [number, number],
): Types.IImage {
  image.minPixelValue = least;
  image.maxPixelValue = greatest;
  if (samples === image.getPixelData()) return image;
  if (image.imageFrame) image.imageFrame.pixelData = samples as never;
  image.getPixelData = () => samples as never;
  image.dataType = samples.constructor.name as never;
  image.sizeInBytes = samples.byteLength;
  image.voxelManager = utilities.VoxelManager.createImageVoxelManager({
    scalarData: samples as never,
    width: image.columns,
    height: image.rows,
    numberOfComponents: image.color ? 3 : 1,
  }) as never;
  return image;
}
