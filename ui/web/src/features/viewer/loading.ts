/** Fetching: the chosen series first, from the picture on screen outwards, then the rest of the study. */
import { cache, Enums, eventTarget, imageLoader, type Types } from '@cornerstonejs/core';
import { readSeriesMetadata } from '../../lib/dicomweb';
import { startCornerstone } from './cornerstone';
import { contentOf, type Frame, type SeriesContent } from './frames';
import { readTables } from './palette';
import { registerFrames } from './pictures';

const AT_ONCE = 6;
const AT_ONCE_IN_BACKGROUND = 2;
const TELL_EVERY_MS = 80;
const PATIENCE_MS = 60_000;

export interface SeriesProgress {
  /** Frames in the series; null until its metadata is read. */
  total: number | null;
  loaded: number;
  failed: number;
  /** Why the first frame that failed could not be read. */
  reason: string | null;
}

export const NOTHING_LOADED: SeriesProgress = { total: null, loaded: 0, failed: 0, reason: null };

interface Entry {
  content: Promise<SeriesContent>;
  frames: Frame[];
  loaded: Set<string>;
  failed: Map<string, string>;
  asked: Set<string>;
}

/** What the server or the decoder said; 'size', 'processor' and 'silence' are our own findings. */
function reasonOf(error: unknown): string {
  if (error instanceof Error) return error.message;
  if (typeof error === 'object' && error !== null) {
    const { request, status, error: inner } = error as Record<string, unknown>;
    if (inner) return reasonOf(inner);
    const answered = (request as XMLHttpRequest | undefined)?.status ?? status;
    if (typeof answered === 'number') return answered ? `HTTP ${answered}` : 'silence';
  }
  return String(error);
}

/** Whether the decoded picture holds as many values as its rows, columns and colours ask for. */
export type StudyLoader = ReturnType<typeof createStudyLoader>;

/** A loader for the series of one study; `close` stops it. */
export function createStudyLoader(aeTitle: string, study: string) {
  const entries = new Map<string, Entry>();
  const seriesOf = new Map<string, string>();
  const listeners = new Set<() => void>();
  const waiting = new Map<string, (() => void)[]>();
  let snapshot: ReadonlyMap<string, SeriesProgress> = new Map();
  let focuses: { series: string; index: number }[] = [];
  let background: string[] = [];
  let running = 0;
  let closed = false;
  let telling: ReturnType<typeof setTimeout> | undefined;
  const abort = new AbortController();

  function tell(): void {
    telling ??= setTimeout(() => {
      telling = undefined;
      snapshot = new Map(
        [...entries].map(([series, entry]) => [
          series,
          {
            total: entry.frames.length || null,
            loaded: entry.loaded.size,
            failed: entry.failed.size,
            reason: entry.failed.values().next().value ?? null,
          },
        ]),
      );
      for (const listener of listeners) listener();
    }, TELL_EVERY_MS);
  }

  function entryOf(imageId: string): Entry | undefined {
    const series = seriesOf.get(imageId);
    return series === undefined ? undefined : entries.get(series);
  }

  function fail(imageId: string, reason: string): void {
    const entry = entryOf(imageId);
    if (!entry || closed) return;
    entry.loaded.delete(imageId);
    entry.failed.set(imageId, reason);
    for (const settle of waiting.get(imageId) ?? []) settle();
    waiting.delete(imageId);
    tell();
  }

  function whenAdded(event: Event): void {
    const image = (event as CustomEvent).detail?.image as Types.IImage | undefined;
    const entry = image && entryOf(image.imageId);
    if (!image || !entry) return;
    entry.loaded.add(image.imageId);
    entry.failed.delete(image.imageId);
    waiting.delete(image.imageId);
    tell();
  }

  function whenRemoved(event: Event): void {
    const imageId = (event as CustomEvent).detail?.imageId as string | undefined;
    if (imageId !== undefined && entryOf(imageId)?.loaded.delete(imageId)) tell();
  }

  function whenFailed(event: Event): void {
    const detail = (event as CustomEvent).detail as { imageId?: string; error?: unknown };
    if (detail.imageId !== undefined) fail(detail.imageId, reasonOf(detail.error));
  }

  eventTarget.addEventListener(Enums.Events.IMAGE_LOADED, whenAdded);
  eventTarget.addEventListener(Enums.Events.IMAGE_CACHE_IMAGE_REMOVED, whenRemoved);
  eventTarget.addEventListener(Enums.Events.IMAGE_LOAD_FAILED, whenFailed);

  /** Resolves when the frame turns out not to be readable, also when nothing at all is heard of it. */
  function failureOf(imageId: string): Promise<void> {
    return new Promise((resolve) => {
      waiting.set(imageId, [...(waiting.get(imageId) ?? []), resolve]);
      setTimeout(() => {
        if (waiting.get(imageId)?.includes(resolve)) fail(imageId, 'silence');
      }, PATIENCE_MS);
    });
  }

  /** The nearest frame around the index that nobody has asked for; undefined when there is none. */
  function nearest(entry: Entry, index: number): Frame | undefined {
    const free = (at: number) => {
      const frame = entry.frames[at];
      return frame && !entry.asked.has(frame.imageId) && !entry.loaded.has(frame.imageId)
        ? frame
        : undefined;
    };
    for (let step = 0; step < entry.frames.length; step += 1) {
      const found = free(index + step) ?? free(index - step);
      if (found) return found;
    }
    return undefined;
  }

  /** Whether one more frame like those of the series fits beside what the series already holds. */
  function fits(entry: Entry, beside: number): boolean {
    const sample = entry.loaded.values().next().value;
    const bytes = sample === undefined ? 0 : (cache.getImage(sample)?.sizeInBytes ?? 0);
    return beside + bytes * (running + 1) < cache.getMaxCacheSize();
  }

  function bytesOf(entry: Entry): number {
    const sample = entry.loaded.values().next().value;
    return sample === undefined
      ? 0
      : entry.loaded.size * (cache.getImage(sample)?.sizeInBytes ?? 0);
  }

  function fetch(entry: Entry, frame: Frame): void {
    entry.asked.add(frame.imageId);
    running += 1;
    const load = imageLoader.loadAndCacheImage(frame.imageId, {
      requestType: Enums.RequestType.Prefetch,
      priority: 0,
      useRGBA: false,
    } as never);
    Promise.race([load, failureOf(frame.imageId)])
      .catch(() => undefined) // counted by whenFailed
      .finally(() => {
        running -= 1;
        next();
      });
  }

  function next(): void {
    if (closed || focuses.length === 0) return;
    for (const { series, index } of focuses) {
      const entry = entries.get(series);
      while (entry && running < AT_ONCE && fits(entry, bytesOf(entry))) {
        const frame = nearest(entry, index);
        if (!frame) break;
        fetch(entry, frame);
      }
    }
    while (running < AT_ONCE_IN_BACKGROUND && background.length > 0) {
      const series = background[0] as string;
      const entry = entries.get(series);
      if (!entry) {
        void open(series).then(next, () => {
          background = background.filter((other) => other !== series);
          next();
        });
        return;
      }
      if (entry.frames.length === 0 && !settled.has(series)) return;
      const frame = fits(entry, cache.getCacheSize()) ? nearest(entry, 0) : undefined;
      if (frame) fetch(entry, frame);
      else background = background.slice(1);
    }
  }

  const settled = new Set<string>();

  /** Returns what the series holds, read once; raises Problem. */
  function open(series: string): Promise<SeriesContent> {
    const known = entries.get(series);
    if (known) return known.content;
    const entry: Entry = {
      frames: [],
      loaded: new Set(),
      failed: new Map(),
      asked: new Set(),
      content: Promise.all([
        readSeriesMetadata(aeTitle, study, series, abort.signal).then(async (datasets) => {
          await readTables(datasets);
          return datasets;
        }),
        startCornerstone(),
      ]).then(
        ([datasets]) => {
          const content = contentOf(datasets, aeTitle, study, series);
          entry.frames = content.frames;
          for (const frame of content.frames) seriesOf.set(frame.imageId, series);
          registerFrames(content.frames);
          settled.add(series);
          tell();
          return content;
        },
        (error: unknown) => {
          entries.delete(series);
          throw error;
        },
      ),
    };
    entries.set(series, entry);
    return entry.content;
  }

  return {
    open,

    /** Loads around these pictures first; the first of them before the others. */
    focus(next_: { series: string; index: number }[]): void {
      focuses = next_;
      next();
    },

    /** Loads these series when nothing nearer is waiting. */
    loadInBackground(series: string[]): void {
      background = series.filter((uid) => !focuses.some((focus) => focus.series === uid));
      next();
    },

    failureOf,

    /** Why the frame could not be read; undefined when it could, or was not tried. */
    reasonFor(imageId: string): string | undefined {
      return entryOf(imageId)?.failed.get(imageId);
    },

    subscribe(listener: () => void): () => void {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },

    progress(): ReadonlyMap<string, SeriesProgress> {
      return snapshot;
    },

    close(): void {
      closed = true;
      abort.abort();
      clearTimeout(telling);
      listeners.clear();
      eventTarget.removeEventListener(Enums.Events.IMAGE_LOADED, whenAdded);
      eventTarget.removeEventListener(Enums.Events.IMAGE_CACHE_IMAGE_REMOVED, whenRemoved);
      eventTarget.removeEventListener(Enums.Events.IMAGE_LOAD_FAILED, whenFailed);
    },
  };
}
