import type { MessageKey } from '../../i18n';

/** A window: width and center in the values of the image (PS3.3 §C.11.2.1.2). */
export interface Window {
  width: number;
  center: number;
}

/** What a preset needs to know of the image on screen. */
export interface WindowSource {
  /** The window the image came with. */
  initial: Window;
  /** The smallest and largest value in the image. */
  range: { lower: number; upper: number };
}

export interface WindowPreset {
  key: MessageKey;
  window: (source: WindowSource) => Window;
}

export interface ValueRange {
  lower: number;
  upper: number;
}

/**
 * The values shown as black and as white: W 400 C 40 is −160 … 239, or, exact, −160 … 240
 * (PS3.3 §C.11.2.1.2.1 and §C.11.2.1.3.2).
 */
export function rangeOf({ width, center }: Window, exact = false): ValueRange {
  const lower = center - width / 2;
  return { lower, upper: lower + (exact ? width : width - 1) };
}

export function windowOf({ lower, upper }: ValueRange, exact = false): Window {
  const width = upper - lower + (exact ? 0 : 1);
  return { width, center: lower + width / 2 };
}

/** A width or center as it is written: whole numbers, but decimals where the whole range is small. */
export function windowNumber(value: number, width: number): number {
  return width >= 20 ? Math.round(value) : Number(value.toFixed(2));
}

function fixed(key: MessageKey, width: number, center: number): WindowPreset {
  return { key, window: () => ({ width, center }) };
}

/** A width times a factor. Below 2 only what began there: the drawing library turns a ramp of no width upside down. */
export function narrowed(width: number, factor: number): number {
  return Math.max(width * factor, Math.min(width, 2));
}

function scaled(key: MessageKey, factor: number): WindowPreset {
  return {
    key,
    window: ({ initial }) => ({
      width: narrowed(initial.width, factor),
      center: initial.center,
    }),
  };
}

const AS_STORED: WindowPreset = { key: 'preset.stored', window: ({ initial }) => initial };
const FULL: WindowPreset = { key: 'preset.full', window: ({ range }) => windowOf(range) };

const COMPUTED_TOMOGRAPHY: WindowPreset[] = [
  AS_STORED,
  fixed('preset.softTissue', 400, 40),
  fixed('preset.lung', 1500, -600),
  fixed('preset.bone', 2500, 480),
  fixed('preset.brain', 80, 40),
  fixed('preset.liver', 150, 90),
  fixed('preset.mediastinum', 350, 50),
  fixed('preset.angiography', 600, 300),
  FULL,
];

const RELATIVE: WindowPreset[] = [
  AS_STORED,
  FULL,
  scaled('preset.high', 0.5),
  scaled('preset.higher', 0.75),
  scaled('preset.lower', 1.5),
  scaled('preset.low', 2),
];

/** The presets of a modality; the first nine answer to the keys 1–9. */
export function presetsOf(modality: string): WindowPreset[] {
  return modality === 'CT' ? COMPUTED_TOMOGRAPHY : RELATIVE;
}

/** The place of the preset that gives this window; -1 when none does. */
export function presetAt(presets: WindowPreset[], source: WindowSource, window: Window): number {
  return presets.findIndex((preset) => {
    const candidate = preset.window(source);
    const tolerance = Math.max(Math.abs(candidate.width) * 0.001, 0.01);
    return (
      Math.abs(candidate.width - window.width) <= tolerance &&
      Math.abs(candidate.center - window.center) <= tolerance
    );
  });
}
