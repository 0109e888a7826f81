import { PersonName } from '../../components/person';
import { useTranslation } from '../../i18n';
import type { Patient, Series, Study } from '../../lib/api';
import { numberOf } from '../../lib/dicomweb';
import { ageAt, clock, personNumber } from '../../lib/format';
import { type Frame, isProjection, lossOf } from './frames';
import classes from './overlay.module.css';
import type { ViewState } from './stack-view';
import { windowNumber } from './window-presets';

interface OverlayProps {
  patient: Patient;
  study: Study;
  series: Series;
  frame: Frame | undefined;
  state: ViewState;
}

/** The text that always stands over a picture: whose it is, what it is, which side is which. */
export function Overlay({ patient, study, series, frame, state }: OverlayProps) {
  const { t, measure } = useTranslation();
  const age = ageAt(patient.birth_date, study.study_date);
  const loss = frame ? lossOf(frame.dataset) : null;
  const thickness = frame ? numberOf(frame.dataset, '00180050') : null;
  const location = frame ? numberOf(frame.dataset, '00201041') : null;
  const window = state.colour ? null : state.window;
  return (
    <div className={classes.overlay}>
      <div className={classes.topLeft}>
        <p className={classes.name}>
          <PersonName value={patient.name} fallback={t('patient.nameMissing')} />
        </p>
        <p className={classes.strong}>{personNumber(patient.patient_identifier)}</p>
        <p>
          {[
            patient.sex && t(`patient.sex.${patient.sex}`),
            age !== null && t('patient.age', { count: age }),
          ]
            .filter(Boolean)
            .join(', ')}
        </p>
      </div>
      <div className={classes.topRight}>
        <p className={classes.strong}>
          {study.study_date ?? t('study.dateMissing')} {clock(study.study_time)}
        </p>
        <p className={classes.optional}>{study.description}</p>
        <p>{study.institution || study.archive}</p>
        {study.institution && <p className={classes.optional}>{study.archive}</p>}
      </div>
      <div className={classes.bottomLeft}>
        {loss !== null && (
          <p className={classes.loss}>
            {loss ? t('viewer.lossyRatio', { ratio: loss }) : t('viewer.lossy')}
          </p>
        )}
        <p className={classes.optional}>
          {series.series_number !== null && `${t('viewer.seriesShort')} ${series.series_number} `}
          {series.description || series.modality}
        </p>
        {(thickness || location !== null) && (
          <p className={classes.optional}>
            {[
              thickness && `${t('viewer.thickness')} ${measure(thickness)} mm`,
              location !== null && `${t('viewer.position')} ${measure(location)} mm`,
            ]
              .filter(Boolean)
              .join('  ')}
          </p>
        )}
        {state.count > 0 && (
          <p className={classes.strong}>
            {t('viewer.imageOf', { image: state.index + 1, count: state.count })}
          </p>
        )}
      </div>
      <div className={classes.bottomRight}>
        {state.painted !== null && (
          <p>
            {t('viewer.zoom')} {Math.round(state.zoom * 100)} %
          </p>
        )}
        {window && (
          <p className={classes.strong}>
            W {measure(windowNumber(window.width, window.width))} C{' '}
            {measure(windowNumber(window.center, window.width))}
          </p>
        )}
        {state.inverted && <p>{t('viewer.inverted')}</p>}
      </div>
      {state.marks && (
        <>
          <span className={classes.markTop}>{state.marks.top}</span>
          <span className={classes.markBottom}>{state.marks.bottom}</span>
          <span className={classes.markLeft}>{state.marks.left}</span>
          <span className={classes.markRight}>{state.marks.right}</span>
        </>
      )}
      {frame && <ScaleBar state={state} projection={isProjection(frame.dataset)} />}
    </div>
  );
}

const BAR_LENGTHS_MM = [200, 100, 50, 20, 10, 5, 2, 1];
const BAR_LIMIT_PX = 160;

/** A length to compare with, in whole centimetres or millimetres. */
function ScaleBar({ state, projection }: { state: ViewState; projection: boolean }) {
  const { t } = useTranslation();
  const scale = state.pixelsPerMm;
  if (!scale) return null;
  const mm = BAR_LENGTHS_MM.find((length) => length * scale <= BAR_LIMIT_PX);
  if (!mm) return null;
  return (
    <div className={classes.scale}>
      <span>
        {mm >= 10 ? `${mm / 10} cm` : `${mm} mm`}
        {projection && ` ${t('viewer.atDetector')}`}
      </span>
      <div className={classes.bar} style={{ width: mm * scale }} />
    </div>
  );
}
