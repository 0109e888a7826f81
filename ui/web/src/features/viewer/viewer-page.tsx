import { useDocumentTitle } from '@mantine/hooks';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { useCallback, useEffect, useMemo, useRef, useState, useSyncExternalStore } from 'react';
import { BackIcon } from '../../components/icons';
import { EmptyNotice, ProblemNotice } from '../../components/notice';
import { PersonName, PersonNumber } from '../../components/person';
import { useTranslation } from '../../i18n';
import { type Patient, readStudy, type Series, type Study, type StudyDetail } from '../../lib/api';
import { ageAt, clock } from '../../lib/format';
import { chooseTool, forgetEverything, type PointerTool, startCornerstone } from './cornerstone';
import { createStudyLoader, NOTHING_LOADED, type StudyLoader } from './loading';
import { removeMarks, setMeasuringWords } from './measuring';
import { SeriesRail } from './series-rail';
import { ShortcutHelp } from './shortcut-help';
import type { Command } from './shortcuts';
import { Toolbar } from './toolbar';
import classes from './viewer-page.module.css';
import { type PaneControl, ViewportPane } from './viewport-pane';

export { startCornerstone };

const route = getRouteApi('/viewer/$aeTitle/$studyInstanceUid');

export function ViewerPage() {
  const { t } = useTranslation();
  useDocumentTitle(`${t('viewer.title')} – BFR`);
  const { aeTitle, studyInstanceUid } = route.useParams();
  const study = useQuery({
    queryKey: ['study', aeTitle, studyInstanceUid],
    queryFn: ({ signal }) => readStudy(aeTitle, studyInstanceUid, signal),
    refetchInterval: (query) => (query.state.data?.study.state === 'receiving' ? 5000 : false),
  });
  // The drawing library starts while the server answers.
  const [started, setStarted] = useState<boolean | Error>(false);
  useEffect(() => {
    let left = false;
    startCornerstone().then(
      () => left || setStarted(true),
      (error: Error) => left || setStarted(error),
    );
    return () => {
      left = true;
    };
  }, []);

  if (study.isError || started instanceof Error)
    return (
      <div className={classes.message}>
        <h1>{t('viewer.title')}</h1>
        <ProblemNotice
          error={study.error ?? started}
          onRetry={study.isError ? () => void study.refetch() : undefined}
        />
        <Link to="/">{t('timeline.back')}</Link>
      </div>
    );
  if (!study.data || !started)
    return (
      <div className={classes.viewer} data-surface="dark">
        <h1 className={classes.hidden}>{t('viewer.title')}</h1>
        <p className={classes.waiting} role="status">
          {t('viewer.readingStudy')}
        </p>
      </div>
    );
  return <Viewer key={`${aeTitle} ${studyInstanceUid}`} detail={study.data} />;
}

/** The series to begin with: the one asked for, else the first that holds pictures. */
function firstSeries(series: Series[], asked: string | undefined): Series | undefined {
  return (
    series.find((one) => one.series_instance_uid === asked) ??
    series.find((one) => one.representative_sop_instance_uid) ??
    series[0]
  );
}

function useStudyLoader(study: Study): StudyLoader | null {
  const [loader, setLoader] = useState<StudyLoader | null>(null);
  const { archive, study_instance_uid } = study;
  useEffect(() => {
    const made = createStudyLoader(archive, study_instance_uid);
    setLoader(made);
    return () => {
      setLoader(null);
      made.close();
      forgetEverything();
    };
  }, [archive, study_instance_uid]);
  return loader;
}

function Viewer({ detail }: { detail: StudyDetail }) {
  const { t } = useTranslation();
  const loader = useStudyLoader(detail.study);
  if (detail.series.length === 0)
    return (
      <div className={classes.viewer} data-surface="dark">
        <PatientBar patient={detail.patient} study={detail.study} />
        <EmptyNotice title={t('viewer.noSeries')} />
      </div>
    );
  return loader ? <Workspace detail={detail} loader={loader} /> : null;
}

function Workspace({ detail, loader }: { detail: StudyDetail; loader: StudyLoader }) {
  const { t, locale } = useTranslation();
  const { patient, study, series } = detail;
  const asked = route.useSearch({ select: (search) => search.series });
  const navigate = route.useNavigate();
  const progress = useSyncExternalStore(loader.subscribe, loader.progress);

  const [panes, setPanes] = useState<[string, string]>(() => {
    const first = firstSeries(series, asked)?.series_instance_uid ?? '';
    const second = series.find(
      (one) => one.series_instance_uid !== first && one.representative_sop_instance_uid,
    );
    return [first, second?.series_instance_uid ?? first];
  });
  const [layout, setLayout] = useState<1 | 2>(1);
  const [active, setActive] = useState<0 | 1>(0);
  const [tool, setTool] = useState<PointerTool>('window');
  const [help, setHelp] = useState(false);
  const [control, setControl] = useState<PaneControl | null>(null);
  const [announcement, setAnnouncement] = useState('');
  const workspace = useRef<HTMLDivElement>(null);
  const shown = useMemo(() => (layout === 1 ? [panes[0]] : panes), [layout, panes]);

  useEffect(() => {
    setMeasuringWords({
      area: t('measure.area'),
      mean: t('measure.mean'),
      deviation: t('measure.deviation'),
      range: t('measure.range'),
      atDetector: t('viewer.atDetector'),
      locale,
    });
  }, [t, locale]);

  const focusPicture = useCallback((pane: number) => {
    const pictures = workspace.current?.querySelectorAll<HTMLElement>('[data-testid="viewport"]');
    pictures?.[pane]?.focus({ preventScroll: true });
  }, []);
  useEffect(() => focusPicture(0), [focusPicture]);

  const choose = useCallback(
    (uid: string) => {
      setPanes((before) => (active === 0 ? [uid, before[1]] : [before[0], uid]));
      const chosen = series.find((one) => one.series_instance_uid === uid);
      setAnnouncement(
        t('viewer.seriesChosen', { series: chosen?.description || chosen?.modality || uid }),
      );
      if (active === 0) void navigate({ search: { series: uid }, replace: true });
      focusPicture(active);
    },
    [active, series, t, navigate, focusPicture],
  );

  const pickTool = (next: PointerTool) => {
    chooseTool(next);
    setTool(next);
  };
  const arrange = (next: 1 | 2) => {
    setLayout(next);
    setActive(0);
    focusPicture(0);
    setAnnouncement(t(next === 1 ? 'tool.oneUp' : 'tool.twoUp'));
  };
  const stepSeries = (step: number) => {
    const at = series.findIndex((one) => one.series_instance_uid === panes[active]);
    const next = series[at + step];
    if (next) choose(next.series_instance_uid);
  };
  const handleCommand = (command: Command) => {
    const actions: Partial<Record<Command, () => void>> = {
      previousSeries: () => stepSeries(-1),
      nextSeries: () => stepSeries(1),
      otherViewport: () => layout === 2 && focusPicture(1 - active),
      toolWindow: () => pickTool('window'),
      toolZoom: () => pickTool('zoom'),
      toolPan: () => pickTool('pan'),
      toolScroll: () => pickTool('scroll'),
      toolLength: () => pickTool('length'),
      layout: () => arrange(layout === 1 ? 2 : 1),
      help: () => setHelp(true),
    };
    actions[command]?.();
  };

  // What is on screen loads first; when it is there the rest of the study follows.
  const places = useRef(new Map<number, { series: string; index: number }>());
  const handleIndex = (pane: number, uid: string, index: number | null) => {
    if (index === null) places.current.delete(pane);
    else places.current.set(pane, { series: uid, index });
    const order = [places.current.get(active), places.current.get(1 - active)];
    loader.focus(order.filter((place) => place !== undefined));
    if (index === null) return;
    loader.loadInBackground(
      series
        .filter((one) => one.representative_sop_instance_uid)
        .map((one) => one.series_instance_uid),
    );
  };

  return (
    <div className={classes.viewer} data-surface="dark">
      <PatientBar patient={patient} study={study} />
      <Toolbar
        control={control}
        modality={series.find((one) => one.series_instance_uid === panes[active])?.modality ?? ''}
        tool={tool}
        layout={layout}
        onTool={pickTool}
        onLayout={arrange}
        onRemoveMarks={() => setAnnouncement(t('measure.removed', { count: removeMarks() }))}
        onHelp={() => setHelp(true)}
      />
      <div className={classes.body}>
        <SeriesRail
          study={study}
          series={series}
          shown={shown}
          progress={progress}
          onChoose={choose}
        />
        <div className={classes.workspace} data-layout={layout} ref={workspace}>
          {shown.map((uid, pane) => {
            const one = series.find((candidate) => candidate.series_instance_uid === uid);
            return one ? (
              <ViewportPane
                // biome-ignore lint/suspicious/noArrayIndexKey: a pane is its place on the screen
                key={pane}
                id={String(pane + 1)}
                loader={loader}
                patient={patient}
                study={study}
                series={one}
                progress={progress.get(uid) ?? NOTHING_LOADED}
                active={active === pane}
                single={layout === 1}
                onActivate={() => setActive(pane as 0 | 1)}
                onCommand={handleCommand}
                onControl={setControl}
                onIndex={(index) => handleIndex(pane, uid, index)}
              />
            ) : null;
          })}
        </div>
      </div>
      <p role="status" className={classes.hidden}>
        {announcement}
      </p>
      <ShortcutHelp
        opened={help}
        onClose={() => {
          setHelp(false);
          focusPicture(active);
        }}
      />
    </div>
  );
}

function PatientBar({ patient, study }: { patient: Patient; study: Study }) {
  const { t } = useTranslation();
  const age = ageAt(patient.birth_date, study.study_date);
  return (
    <div className={classes.patientBar}>
      <Link
        to="/patient/$patientKey"
        params={{ patientKey: patient.patient_key }}
        className={classes.back}
        aria-label={t('viewer.back')}
      >
        <BackIcon size={18} />
      </Link>
      <h1 className={classes.patient}>
        <PersonName value={patient.name} fallback={t('patient.nameMissing')} />
        <span className={classes.identifier}>
          <PersonNumber value={patient.patient_identifier} />
        </span>
        <span className={classes.muted}>
          {[
            patient.sex && t(`patient.sex.${patient.sex}`),
            age !== null && t('patient.age', { count: age }),
          ]
            .filter(Boolean)
            .join(', ')}
        </span>
      </h1>
      <p className={classes.study}>
        <span>
          {study.study_date ?? t('study.dateMissing')} {clock(study.study_time)}
        </span>
        <strong>{study.description || t('study.descriptionMissing')}</strong>
        {study.accession_number && (
          <span className={classes.muted}>
            {t('study.accession')} {study.accession_number}
          </span>
        )}
        <span className={classes.muted}>{study.archive}</span>
      </p>
      <p className={classes.intendedUse}>{t('viewer.intendedUse')}</p>
    </div>
  );
}
