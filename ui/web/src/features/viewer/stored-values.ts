/** From what a decoder gives to what the values mean (PS3.5 §8.1.1, PS3.3 §C.11), as the server's rendering does it. */
import { type DicomDataset, itemsOf, numberOf, numbersOf, textOf } from '../../lib/dicomweb';

export type Samples =
  | Uint8Array
  | Uint8ClampedArray
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array;

/** Where a stored value lies among the bits that are allocated for it. */
export interface BitLayout {
  allocated: number;
  stored: number;
  /** The lowest bit of the value: 0, but not where High Bit says otherwise. */
  lowest: number;
  signed: boolean;
}

/** The bit layout of a picture; null when it has none, as floating point pixels. */
export function bitLayoutOf(dataset: DicomDataset): BitLayout | null {
  const allocated = numberOf(dataset, '00280100');
  const stored = numberOf(dataset, '00280101');
  if (!allocated || !stored || stored > allocated || allocated > 32) return null;
  const high = numberOf(dataset, '00280102') ?? stored - 1;
  const lowest = high >= stored - 1 && high < allocated ? high + 1 - stored : 0;
  return { allocated, stored, lowest, signed: numberOf(dataset, '00280103') === 1 };
}

export function extremes(samples: Samples, skip?: (value: number) => boolean): [number, number] {
  let least = Number.POSITIVE_INFINITY;
  let greatest = Number.NEGATIVE_INFINITY;
  for (let at = 0; at < samples.length; at += 1) {
    const value = samples[at] as number;
    if (skip?.(value)) continue;
    if (value < least) least = value;
    if (value > greatest) greatest = value;
  }
  return least <= greatest ? [least, greatest] : [0, 0];
}

/**
 * The stored values among allocated samples: bits outside may hold an overlay, as older objects have it.
 * The samples themselves when they hold nothing else, of which `greatest` is the largest.
 */
export function storedValues(samples: Samples, layout: BitLayout, greatest: number): Samples {
  const { allocated, stored, lowest, signed } = layout;
  if (signed && lowest === 0 && stored === allocated && !(samples instanceof Uint8Array))
    return samples;
  if (!signed && lowest === 0 && greatest < 2 ** stored) return samples;
  const spare = 32 - stored;
  const out = new (arrayOf(allocated, signed))(samples.length);
  for (let at = 0; at < samples.length; at += 1) {
    const atTheTop = ((samples[at] as number) >>> lowest) << spare;
    out[at] = signed ? atTheTop >> spare : atTheTop >>> spare;
  }
  return out;
}

function arrayOf(bits: number, signed: boolean) {
  if (bits <= 8) return signed ? Int8Array : Uint8Array;
  if (bits <= 16) return signed ? Int16Array : Uint16Array;
  return signed ? Int32Array : Uint32Array;
}

/** A lookup table: values before its first and after its last entry get the nearest (PS3.3 §C.11.1.1). */
export interface LookupTable {
  first: number;
  entries: ArrayLike<number>;
  bits: number;
}

/** The first table of Modality or VOI LUT Sequence, once its entries are read; null when there is none. */
export function lookupTableOf(
  dataset: DicomDataset,
  sequence: string,
  signed: boolean,
): LookupTable | null {
  const item = itemsOf(dataset, sequence)[0];
  const entries = item ? numbersOf(item, '00283006') : [];
  if (!item || entries.length === 0) return null;
  const [, first = 0, bits = 16] = numbersOf(item, '00283002');
  return {
    first: signed && first >= 0x8000 ? first - 0x10000 : first,
    entries,
    // The third number is often wrong: the entries tell more.
    bits: Math.min(Math.max(bits, 32 - Math.clz32(greatestOf(entries))), 16),
  };
}

function greatestOf(entries: ArrayLike<number>): number {
  let greatest = 0;
  for (let at = 0; at < entries.length; at += 1)
    greatest = Math.max(greatest, entries[at] as number);
  return greatest;
}

export function lookedUp(samples: Samples, { first, entries }: LookupTable): Uint16Array {
  const last = entries.length - 1;
  const out = new Uint16Array(samples.length);
  for (let at = 0; at < samples.length; at += 1) {
    const place = Math.round(samples[at] as number) - first;
    out[at] = entries[Math.max(0, Math.min(place, last))] as number;
  }
  return out;
}

/** Values times a slope plus an intercept, in the narrowest kind of array that holds them. */
export function rescaled(
  samples: Samples,
  slope: number,
  intercept: number,
  [least, greatest]: [number, number],
): Samples {
  const wide = samples instanceof Uint32Array || samples instanceof Int32Array;
  // Textures of whole numbers end at 16 bits.
  if (slope === 1 && intercept === 0) return wide ? Float32Array.from(samples) : samples;
  const ends = [least * slope + intercept, greatest * slope + intercept];
  const [lower, upper] = [Math.min(...ends), Math.max(...ends)];
  const whole = Number.isInteger(slope) && Number.isInteger(intercept);
  const integers = whole && !(samples instanceof Float32Array);
  const Kind =
    integers && lower >= -32_768 && upper <= 32_767
      ? Int16Array
      : integers && lower >= 0 && upper <= 65_535
        ? Uint16Array
        : Float32Array;
  const out = new Kind(samples.length);
  for (let at = 0; at < samples.length; at += 1)
    out[at] = (samples[at] as number) * slope + intercept;
  return out;
}

/** Which stored values are padding (PS3.3 §C.7.5.1.1.2); null when none are. */
export function paddingOf(
  dataset: DicomDataset,
  layout: BitLayout,
): ((value: number) => boolean) | null {
  const one = numberOf(dataset, '00280120');
  if (one === null) return null;
  const other = numberOf(dataset, '00280121') ?? one;
  const half = 2 ** (layout.allocated - 1);
  const [a, b] = [one, other].map((bound) =>
    layout.signed && bound >= half ? bound - 2 * half : bound,
  ) as [number, number];
  const [lower, upper] = [Math.min(a, b), Math.max(a, b)];
  return (value) => value >= lower && value <= upper;
}

function toRgb(out: Uint8ClampedArray, at: number, y: number, cb: number, cr: number): void {
  out[at] = y + 1.402 * (cr - 128);
  out[at + 1] = y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128);
  out[at + 2] = y + 1.772 * (cb - 128);
}

/** Red, green and blue of 8 bits, of samples of more (PS3.3 §C.7.6.3.1.2 and §C.7.6.3.1.3). */
export function coloursOfEightBits(
  samples: Samples,
  { bits, planar, ybr }: { bits: number; planar: boolean; ybr: boolean },
): Uint8ClampedArray {
  const out = new Uint8ClampedArray(samples.length);
  const scale = 255 / (2 ** bits - 1);
  const [next, plane] = planar ? [1, samples.length / 3] : [3, 1];
  for (let to = 0, from = 0; to < out.length; to += 3, from += next) {
    const [one, two, three] = [0, plane, 2 * plane].map(
      (step) => (samples[from + step] as number) * scale,
    ) as [number, number, number];
    if (ybr) toRgb(out, to, one, two, three);
    else out.set([one, two, three], to);
  }
  return out;
}

/** Red, green and blue of uncompressed YBR_FULL_422, where two pixels share one pair of colours. */
export function coloursOfPairs(samples: Samples, rows: number, columns: number): Uint8ClampedArray {
  const out = new Uint8ClampedArray(rows * columns * 3);
  const rowLength = 2 * (columns + (columns % 2));
  let to = 0;
  for (let row = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1) {
      const pair = row * rowLength + 4 * (column >> 1);
      const [y, cb, cr] = [column % 2, 2, 3].map((step) => samples[pair + step]) as [
        number,
        number,
        number,
      ];
      toRgb(out, to, y, cb, cr);
      to += 3;
    }
  }
  return out;
}

/** The window a picture comes with, and how it is meant (PS3.3 §C.11.2.1). */
export interface OwnWindow {
  width: number;
  center: number;
  kind: 'LINEAR' | 'LINEAR_EXACT' | 'SIGMOID';
}

/** The first window of the data set; null when it has none that can be used. */
export function ownWindowOf(dataset: DicomDataset): OwnWindow | null {
  const width = numberOf(dataset, '00281051');
  const center = numberOf(dataset, '00281050');
  if (width === null || center === null || width <= 0) return null;
  const kind = textOf(dataset, '00281056').toUpperCase();
  if (kind === 'SIGMOID') return { width, center, kind };
  // A step from black to white between two whole values.
  if (width === 1 && kind !== 'LINEAR_EXACT')
    return { width, center: center - 0.5, kind: 'LINEAR_EXACT' };
  // LINEAR has no meaning below a width of 1, but values with a small slope have such windows.
  const exact = kind === 'LINEAR_EXACT' || width < 1;
  return { width, center, kind: exact ? 'LINEAR_EXACT' : 'LINEAR' };
}
