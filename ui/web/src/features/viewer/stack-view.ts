/** One picture area on the page: shows a stack of frames and tells what is on screen. */
import { Enums, eventTarget, type StackViewport, utilities } from '@cornerstonejs/core';
import { renderingEngine, toolGroup } from './cornerstone';
import {
  attributesOf,
  type Frame,
  hasExactWindow,
  hasSpacing,
  hasWindow,
  orientationOf,
} from './frames';
import type { StudyLoader } from './loading';
import { type SideMarks, sideMarks } from './orientation';
import { ownWindowOf } from './stored-values';
import { narrowed, rangeOf, type Window, type WindowSource, windowOf } from './window-presets';

export interface ViewState {
  /** The frame asked for, from 0. */
  index: number;
  count: number;
  /** The frame whose picture is on screen; null when there is none, or when it could not be read. */
  painted: number | null;
  /** The series has had a picture drawn on screen. */
  rendered: boolean;
  /** Why the frame asked for could not be read. */
  failure: string | null;
  window: Window | null;
  source: WindowSource | null;
  /** 1 when the whole picture just fits. */
  zoom: number;
  /** Screen pixels for one millimetre; null when the picture has no scale. */
  pixelsPerMm: number | null;
  marks: SideMarks | null;
  inverted: boolean;
  /** A colour picture has no window. */
  colour: boolean;
}

export const NOTHING_SHOWN: ViewState = {
  index: 0,
  count: 0,
  painted: null,
  rendered: false,
  failure: null,
  window: null,
  source: null,
  zoom: 1,
  pixelsPerMm: null,
  marks: null,
  inverted: false,
  colour: false,
};

export type StackView = ReturnType<typeof createStackView>;

/** Makes the element a picture area; `tell` gets the state after each change. */
export function createStackView(
  element: HTMLDivElement,
  viewportId: string,
  loader: StudyLoader,
  tell: (state: ViewState) => void,
) {
  const engine = renderingEngine();
  engine.enableElement({
    viewportId,
    element,
    type: Enums.ViewportType.STACK,
    defaultOptions: { background: [0, 0, 0] },
  });
  const viewport = engine.getViewport(viewportId) as StackViewport;
  toolGroup().addViewport(viewportId, engine.id);

  let frames: Frame[] = [];
  let painted: number | null = null;
  let rendered = false;
  /** The zoom at which the whole picture fits: 1, but not where the processor draws. */
  let wholeZoom = 1;
  let source: WindowSource | null = null;
  /** The windows of the series go from edge to edge of their width. */
  let exact = false;
  let wanted = 0;
  let walking = false;
  let generation = 0;
  let closed = false;
  let telling = 0;

  function marksOnScreen(): SideMarks | null {
    const frame = painted === null ? undefined : frames[painted];
    const imageData = frame && viewport.getImageData();
    if (!frame || !imageData) return null;
    const center: [number, number] = [element.clientWidth / 2, element.clientHeight / 2];
    const at = (x: number, y: number) =>
      utilities.transformWorldToIndexContinuous(
        imageData.imageData as never,
        viewport.canvasToWorld([center[0] + x, center[1] + y]),
      );
    const origin = at(0, 0);
    const step = (x: number, y: number): [number, number] => {
      const point = at(x, y);
      return [(point[0] ?? 0) - (origin[0] ?? 0), (point[1] ?? 0) - (origin[1] ?? 0)];
    };
    return sideMarks(
      { right: step(10, 0), down: step(0, 10) },
      {
        cosines: orientationOf(frame),
        patientOrientation: frame.dataset['00200020']?.Value ?? [],
      },
    );
  }

  function pixelsPerMm(): number | null {
    const frame = painted === null ? undefined : frames[painted];
    if (!frame || !hasSpacing(frame)) return null;
    const one = viewport.canvasToWorld([0, 0]);
    const other = viewport.canvasToWorld([100, 0]);
    const mm = Math.hypot(other[0] - one[0], other[1] - one[1], other[2] - one[2]);
    return mm > 0 ? 100 / mm : null;
  }

  function state(): ViewState {
    const image = painted === null ? undefined : viewport.getCornerstoneImage();
    const properties = image ? viewport.getProperties() : undefined;
    const asked = frames[wanted];
    const failure = asked && loader.reasonFor(asked.imageId);
    return {
      index: wanted,
      count: frames.length,
      painted,
      rendered,
      failure: painted === wanted ? null : (failure ?? null),
      window: properties?.voiRange ? windowOf(properties.voiRange, exact) : null,
      source,
      zoom: image ? viewport.getZoom() / wholeZoom : 1,
      pixelsPerMm: pixelsPerMm(),
      marks: marksOnScreen(),
      inverted: Boolean(properties?.invert),
      colour: Boolean(image?.color),
    };
  }

  function changed(): void {
    if (telling || closed) return;
    telling = requestAnimationFrame(() => {
      telling = 0;
      if (!closed) tell(state());
    });
  }

  /** What a window preset needs to know, from the picture just shown. */
  function readSource(): void {
    const image = viewport.getCornerstoneImage();
    const range = viewport.getProperties().voiRange;
    if (!image || !range) return;
    const whole = { lower: image.minPixelValue, upper: image.maxPixelValue };
    const frame = frames[viewport.getCurrentImageIdIndex()];
    const own = image.color || !frame || hasWindow(frame);
    exact = frame !== undefined && hasExactWindow(frame);
    const stored = (frame && ownWindowOf(attributesOf(frame))) ?? windowOf(range, exact);
    const { width, center } = own ? stored : windowOf(whole);
    source = { initial: { width, center }, range: whole };
    // Without a window of its own a picture would be shown over all values its bits can hold.
    if (!own) viewport.setProperties({ voiRange: rangeOf(source.initial) });
  }

  function whenShown(): void {
    const index = viewport.getCurrentImageIdIndex();
    const frame = frames[index];
    painted = frame && loader.reasonFor(frame.imageId) === undefined ? index : null;
    if (!source) readSource();
    changed();
  }

  function whenDrawn(): void {
    // The event also comes for an empty viewport.
    rendered ||= painted !== null;
    changed();
  }

  function whenLoadFails(event: Event): void {
    const imageId = (event as CustomEvent).detail?.imageId;
    const current = frames[wanted];
    if (current && imageId === current.imageId) {
      painted = null;
      changed();
    }
  }

  /** Follows the stack tool, which moves the viewport by itself. */
  function whenAsked(event: Event): void {
    const index = (event as CustomEvent).detail?.imageIdIndex;
    if (typeof index !== 'number') return;
    wanted = index;
    changed();
  }

  const { Events } = Enums;
  const elementEvents: [string, (event: Event) => void][] = [
    [Events.STACK_NEW_IMAGE, whenShown],
    [Events.PRE_STACK_NEW_IMAGE, whenAsked],
    [Events.VOI_MODIFIED, changed],
    [Events.CAMERA_MODIFIED, changed],
    [Events.IMAGE_RENDERED, whenDrawn],
  ];
  for (const [name, handle] of elementEvents) element.addEventListener(name, handle);
  eventTarget.addEventListener(Events.IMAGE_LOAD_FAILED, whenLoadFails);
  const unsubscribe = loader.subscribe(changed);
  eventTarget.addEventListener(Events.IMAGE_LOAD_ERROR, whenLoadFails);

  const resized = new ResizeObserver(() => {
    if (!closed && element.clientWidth > 0 && element.clientHeight > 0) {
      engine.resize(true, true);
      changed();
    }
  });
  resized.observe(element);

  /** Walks to the newest wanted frame; the ones skipped meanwhile are never asked for. */
  async function walk(): Promise<void> {
    walking = true;
    let target: number;
    do {
      target = wanted;
      await Promise.race([
        viewport.setImageIdIndex(target).catch(() => undefined), // told by whenLoadFails
        loader.failureOf(frames[target]?.imageId ?? ''),
      ]);
    } while (!closed && frames.length > 0 && target !== wanted);
    walking = false;
  }

  function goTo(index: number): void {
    if (frames.length === 0) return;
    wanted = Math.max(0, Math.min(index, frames.length - 1));
    changed();
    if (!walking && viewport.getCurrentImageIdIndex() !== wanted) void walk();
  }

  return {
    /** Shows the frames, beginning at one of them; resolves when it is on screen or has failed. */
    async show(next: Frame[], index: number): Promise<void> {
      generation += 1;
      const mine = generation;
      frames = next;
      wanted = index;
      painted = null;
      rendered = false;
      source = null;
      changed();
      const imageId = next[index]?.imageId ?? '';
      await Promise.race([
        viewport.setStack(
          next.map((frame) => frame.imageId),
          index,
        ),
        loader.failureOf(imageId),
      ]);
      if (closed || mine !== generation) return;
      if (viewport.getCornerstoneImage()?.imageId === imageId) {
        viewport.resetCamera();
        wholeZoom = viewport.getZoom() || 1;
        viewport.render();
        whenShown();
      } else changed();
    },

    /** Shows no picture at all. */
    clear(): void {
      generation += 1;
      frames = [];
      painted = null;
      rendered = false;
      source = null;
      wanted = 0;
      changed();
    },

    goTo,
    scroll(steps: number): void {
      goTo(wanted + steps);
    },
    index(): number {
      return wanted;
    },

    setWindow(window: Window): void {
      if (painted === null) return;
      viewport.setProperties({ voiRange: rangeOf(window, exact) });
      viewport.render();
      changed();
    },

    /** Changes width and center by shares of the present width, as a drag would. */
    nudgeWindow(width: number, center: number): void {
      const range = painted === null ? undefined : viewport.getProperties().voiRange;
      if (!range) return;
      const now = windowOf(range, exact);
      this.setWindow({
        width: exact ? now.width * Math.max(1 + width, 0.5) : narrowed(now.width, 1 + width),
        center: now.center + now.width * center,
      });
    },

    zoomBy(factor: number): void {
      if (painted === null) return;
      viewport.setZoom(Math.max(0.1, Math.min(viewport.getZoom() * factor, 40)));
      viewport.render();
      changed();
    },

    panBy(x: number, y: number): void {
      if (painted === null) return;
      const [left, top] = viewport.getPan();
      viewport.setPan([left + x, top + y]);
      viewport.render();
      changed();
    },

    invert(): void {
      if (painted === null) return;
      viewport.setProperties({ invert: !viewport.getProperties().invert });
      viewport.render();
      changed();
    },

    flip(axis: 'horizontal' | 'vertical'): void {
      if (painted === null) return;
      const { flipHorizontal, flipVertical } = viewport.getCamera();
      viewport.setCamera(
        axis === 'horizontal'
          ? { flipHorizontal: !flipHorizontal }
          : { flipVertical: !flipVertical },
      );
      viewport.render();
      changed();
    },

    rotate(degrees: number): void {
      if (painted === null) return;
      viewport.setViewPresentation({ rotation: (viewport.getRotation() + degrees + 360) % 360 });
      viewport.render();
      changed();
    },

    /** The picture as it came: whole, upright, with its own window. */
    reset(): void {
      if (painted === null) return;
      viewport.setViewPresentation({ rotation: 0 });
      viewport.resetProperties();
      viewport.resetCamera();
      viewport.setCamera({ flipHorizontal: false, flipVertical: false });
      if (source) viewport.setProperties({ voiRange: rangeOf(source.initial, exact) });
      viewport.render();
      changed();
    },

    close(): void {
      closed = true;
      cancelAnimationFrame(telling);
      resized.disconnect();
      unsubscribe();
      for (const [name, handle] of elementEvents) element.removeEventListener(name, handle);
      eventTarget.removeEventListener(Events.IMAGE_LOAD_FAILED, whenLoadFails);
      eventTarget.removeEventListener(Events.IMAGE_LOAD_ERROR, whenLoadFails);
      if (!engine.hasBeenDestroyed) {
        toolGroup().removeViewports(engine.id, viewportId);
        engine.disableElement(viewportId);
      }
    },
  };
}
