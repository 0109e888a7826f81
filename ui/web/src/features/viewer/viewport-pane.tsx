import { type KeyboardEvent, useEffect, useRef, useState } from 'react';
import { ProblemNotice } from '../../components/notice';
import { type Translation, useTranslation } from '../../i18n';
import type { Patient, Series, Study } from '../../lib/api';
import { useCine } from './cine';
import { DocumentView } from './document-view';
import type { SeriesContent } from './frames';
import type { SeriesProgress, StudyLoader } from './loading';
import { Overlay } from './overlay';
import { type Command, commandOf } from './shortcuts';
import { createStackView, NOTHING_SHOWN, type StackView, type ViewState } from './stack-view';
import classes from './viewport-pane.module.css';
import { presetsOf, windowNumber } from './window-presets';

const NUDGE = 0.05;
const PAN_PX = 40;
const ZOOM = 1.15;

/** What the page may do with a picture area, and what it needs to know to offer it. */
export interface PaneControl {
  run: (command: Command) => void;
  view: StackView | null;
  state: ViewState;
  rate: number | null;
  playing: boolean;
  setRate: (rate: number) => void;
  document: boolean;
}

interface ViewportPaneProps {
  id: string;
  loader: StudyLoader;
  patient: Patient;
  study: Study;
  series: Series;
  progress: SeriesProgress;
  active: boolean;
  single: boolean;
  onActivate: () => void;
  onCommand: (command: Command) => void;
  onControl: (control: PaneControl) => void;
  onIndex: (index: number | null) => void;
}

/** Why a picture could not be read, as a sentence; what a decoder said stays as it said it. */
function reasonText(reason: string, t: Translation['t']): string {
  if (reason === 'size') return t('viewer.reason.size');
  if (reason === 'processor') return t('viewer.reason.processor');
  if (reason === 'silence') return t('viewer.reason.silence');
  return reason.startsWith('HTTP ') ? t('viewer.reason.answer', { answer: reason }) : reason;
}

type Loaded =
  | { series: string; content: SeriesContent; error?: undefined }
  | { series: string; content?: undefined; error: unknown };

export function ViewportPane(props: ViewportPaneProps) {
  const { id, loader, patient, study, series, progress, active, single } = props;
  const { onActivate, onCommand, onControl, onIndex } = props;
  const { t } = useTranslation();
  const element = useRef<HTMLDivElement>(null);
  const [view, setView] = useState<StackView | null>(null);
  const [state, setState] = useState<ViewState>(NOTHING_SHOWN);
  const [loaded, setLoaded] = useState<Loaded | null>(null);
  const [attempt, setAttempt] = useState(0);

  const uid = series.series_instance_uid;
  const shown = loaded?.series === uid ? loaded : null;
  const content = shown?.content;
  const isDocument = Boolean(content && content.frames.length === 0);
  const cine = useCine(view, content?.rate ?? null, content?.frames.length ?? 0, uid);

  useEffect(() => {
    if (!element.current) return;
    const made = createStackView(element.current, id, loader, setState);
    setView(made);
    return () => {
      setView(null);
      made.close();
    };
  }, [id, loader]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: another attempt reads the series again
  useEffect(() => {
    if (!view) return;
    let left = false;
    view.clear();
    onIndex(null);
    loader.open(uid).then(
      async (opened) => {
        if (left) return;
        setLoaded({ series: uid, content: opened });
        if (opened.frames.length === 0) {
          onIndex(-1);
          return;
        }
        const first = opened.rate === null ? Math.floor(opened.frames.length / 2) : 0;
        await view.show(opened.frames, first);
        if (!left) onIndex(first);
      },
      (error: unknown) => {
        if (!left) setLoaded({ series: uid, error });
      },
    );
    return () => {
      left = true;
    };
  }, [view, uid, loader, attempt]);

  const { index, painted } = state;
  // biome-ignore lint/correctness/useExhaustiveDependencies: the page is told when the picture changes
  useEffect(() => {
    if (painted !== null) onIndex(index);
  }, [index, painted]);

  const run = (command: Command) => {
    if (!view) return;
    const preset = /^preset(\d)$/.exec(command);
    if (preset) {
      const chosen = presetsOf(series.modality)[Number(preset[1]) - 1];
      if (chosen && state.source && !state.colour) view.setWindow(chosen.window(state.source));
      return;
    }
    const actions: Partial<Record<Command, () => void>> = {
      previousImage: () => view.scroll(-1),
      nextImage: () => view.scroll(1),
      firstImage: () => view.goTo(0),
      lastImage: () => view.goTo(state.count - 1),
      reset: () => view.reset(),
      invert: () => view.invert(),
      flipHorizontal: () => view.flip('horizontal'),
      flipVertical: () => view.flip('vertical'),
      rotateRight: () => view.rotate(90),
      rotateLeft: () => view.rotate(-90),
      cine: cine.toggle,
      zoomIn: () => view.zoomBy(ZOOM),
      zoomOut: () => view.zoomBy(1 / ZOOM),
      wider: () => view.nudgeWindow(NUDGE, 0),
      narrower: () => view.nudgeWindow(-NUDGE, 0),
      brighter: () => view.nudgeWindow(0, -NUDGE),
      darker: () => view.nudgeWindow(0, NUDGE),
      panLeft: () => view.panBy(-PAN_PX, 0),
      panRight: () => view.panBy(PAN_PX, 0),
      panUp: () => view.panBy(0, -PAN_PX),
      panDown: () => view.panBy(0, PAN_PX),
    };
    const action = actions[command];
    if (action) action();
    else onCommand(command);
  };

  const latestRun = useRef(run);
  latestRun.current = run;

  // The toolbar of the page works on the active pane with its newest state.
  // biome-ignore lint/correctness/useExhaustiveDependencies: told when what the toolbar shows changes
  useEffect(() => {
    if (active)
      onControl({
        run: (command) => latestRun.current(command),
        view,
        state,
        rate: cine.rate,
        playing: cine.playing,
        setRate: cine.setRate,
        document: isDocument,
      });
  }, [active, view, state, cine.rate, cine.playing, cine.setRate, isDocument]);

  // In the capture phase: Cornerstone has keys of its own on the element, such as Z for undo.
  const handleKey = (event: KeyboardEvent) => {
    const command = commandOf(event);
    if (!command) return;
    event.preventDefault();
    event.stopPropagation();
    run(command);
  };

  // React listens to the wheel passively, which could not keep the page from scrolling.
  const scroll = useRef((_: number) => {});
  scroll.current = (steps) => {
    cine.stop();
    view?.scroll(steps);
  };
  useEffect(() => {
    const target = element.current;
    if (!target) return;
    let rest = 0;
    const handleWheel = (event: WheelEvent) => {
      if (event.ctrlKey) return; // the zoom of the browser
      event.preventDefault();
      const lines =
        event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY / 50 : event.deltaY;
      const whole = Math.abs(event.deltaY) >= 50 ? Math.sign(event.deltaY) : 0;
      rest = whole ? 0 : rest + lines;
      const steps = whole || Math.trunc(rest);
      rest -= whole ? 0 : steps;
      if (steps) scroll.current(steps);
    };
    target.addEventListener('wheel', handleWheel, { passive: false });
    return () => target.removeEventListener('wheel', handleWheel);
  }, []);

  const frame = content?.frames[state.index];
  const complete = progress.total !== null && progress.loaded + progress.failed >= progress.total;
  const window = state.colour ? null : state.window;
  const label = [
    series.series_number === null ? '' : `${t('viewer.seriesShort')} ${series.series_number}`,
    series.description,
    t('viewer.imageOf', { image: state.index + 1, count: state.count }),
    window &&
      `W ${windowNumber(window.width, window.width)} C ${windowNumber(window.center, window.width)}`,
  ]
    .filter(Boolean)
    .join(', ');

  return (
    <section
      className={classes.pane}
      data-active={active && !single}
      aria-label={t('viewer.pane', { pane: id })}
      onPointerDownCapture={onActivate}
      onFocusCapture={onActivate}
    >
      <div
        ref={element}
        className={classes.picture}
        data-hidden={isDocument || Boolean(shown?.error)}
        data-testid="viewport"
        data-series-instance-uid={uid}
        data-image-index={state.painted ?? -1}
        data-image-count={state.count}
        data-loaded-count={progress.loaded}
        data-failed-count={progress.failed}
        data-window-width={window ? windowNumber(window.width, window.width) : undefined}
        data-window-center={window ? windowNumber(window.center, window.width) : undefined}
        data-zoom={state.zoom.toFixed(3)}
        data-rendered={state.rendered}
        tabIndex={isDocument ? -1 : 0}
        role="img"
        aria-label={label}
        onKeyDownCapture={handleKey}
        onContextMenu={(event) => event.preventDefault()}
      />
      {content && !isDocument && (
        <Overlay patient={patient} study={study} series={series} frame={frame} state={state} />
      )}
      {!isDocument && state.count > 1 && view && (
        <StackSlider state={state} view={view} progress={progress} onTouch={cine.stop} />
      )}
      {!shown && <p className={classes.waiting}>{t('viewer.readingSeries')}</p>}
      {content && !isDocument && painted === null && !state.failure && (
        <p className={classes.waiting}>{t('viewer.readingImage')}</p>
      )}
      {state.failure && !isDocument && (
        <div className={classes.failure} role="alert">
          <p className={classes.failureTitle}>
            {t('viewer.imageFailed', { image: state.index + 1 })}
          </p>
          <p>{reasonText(state.failure, t)}</p>
          <p>{t('viewer.imageFailed.advice')}</p>
        </div>
      )}
      {shown?.error !== undefined && (
        <div className={classes.problem}>
          <ProblemNotice error={shown.error} onRetry={() => setAttempt(attempt + 1)} />
        </div>
      )}
      {isDocument && content && (
        <DocumentView
          documents={content.documents}
          patient={patient}
          study={study}
          series={series}
        />
      )}
      {!isDocument && content && (
        <div className={classes.loading} data-complete={complete}>
          {!complete && progress.total !== null && (
            <>
              <div
                className={classes.loadingBar}
                style={{ width: `${(progress.loaded / progress.total) * 100}%` }}
              />
              <span className={classes.loadingText}>
                {t('viewer.loaded', { loaded: progress.loaded, count: progress.total })}
              </span>
            </>
          )}
        </div>
      )}
      <p role="status" className={classes.failed} data-shown={progress.failed > 0 && !isDocument}>
        {progress.failed > 0 && progress.total !== null && !isDocument
          ? t('viewer.framesFailed', { failed: progress.failed, count: progress.total })
          : ''}
      </p>
    </section>
  );
}

interface StackSliderProps {
  state: ViewState;
  view: StackView;
  progress: SeriesProgress;
  onTouch: () => void;
}

/** The place in the stack: a standing slider whose track shows how much has come. */
function StackSlider({ state, view, progress, onTouch }: StackSliderProps) {
  const { t } = useTranslation();
  const share = progress.total ? (progress.loaded / progress.total) * 100 : 0;
  const handleKey = (event: KeyboardEvent) => {
    // Down is on in a stack, whatever the browser thinks of standing sliders.
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!step) return;
    event.preventDefault();
    onTouch();
    view.scroll(step);
  };
  return (
    <div className={classes.slider}>
      <div className={classes.track}>
        <div className={classes.trackLoaded} style={{ height: `${share}%` }} />
      </div>
      <input
        type="range"
        min={1}
        max={state.count}
        value={state.index + 1}
        aria-label={t('viewer.slider')}
        aria-valuetext={t('viewer.imageOf', { image: state.index + 1, count: state.count })}
        aria-orientation="vertical"
        onKeyDown={handleKey}
        onChange={(event) => {
          onTouch();
          view.goTo(Number(event.currentTarget.value) - 1);
        }}
      />
    </div>
  );
}
