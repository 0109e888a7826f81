import { memo } from 'react';
import { ModalityBadge } from '../../components/modality-badge';
import { Thumbnail } from '../../components/thumbnail';
import { useTranslation } from '../../i18n';
import type { Series, Study } from '../../lib/api';
import { thumbnailAddress } from '../../lib/dicomweb';
import { NOTHING_LOADED, type SeriesProgress } from './loading';
import classes from './series-rail.module.css';

interface SeriesRailProps {
  study: Study;
  series: Series[];
  shown: string[];
  progress: ReadonlyMap<string, SeriesProgress>;
  onChoose: (series: string) => void;
}

/** All series of the study with a picture of each, and how much of it has come. */
export const SeriesRail = memo(function SeriesRail(props: SeriesRailProps) {
  const { study, series, shown, progress, onChoose } = props;
  const { t } = useTranslation();
  return (
    <nav className={classes.rail} aria-label={t('viewer.seriesList')}>
      <ul>
        {series.map((one) => (
          <SeriesItem
            key={one.series_instance_uid}
            study={study}
            series={one}
            current={shown.includes(one.series_instance_uid)}
            progress={progress.get(one.series_instance_uid) ?? NOTHING_LOADED}
            onChoose={onChoose}
          />
        ))}
      </ul>
    </nav>
  );
});

interface SeriesItemProps {
  study: Study;
  series: Series;
  current: boolean;
  progress: SeriesProgress;
  onChoose: (series: string) => void;
}

function SeriesItem({ study, series, current, progress, onChoose }: SeriesItemProps) {
  const { t } = useTranslation();
  const uid = series.series_instance_uid;
  const loading = progress.total !== null && progress.loaded + progress.failed < progress.total;
  const share = progress.total ? (progress.loaded / progress.total) * 100 : 0;
  return (
    <li>
      <button
        type="button"
        className={classes.item}
        aria-current={current}
        data-testid="series-item"
        data-series-instance-uid={uid}
        data-modality={series.modality}
        data-loaded-count={progress.loaded}
        onClick={() => onChoose(uid)}
      >
        <span className={classes.picture}>
          <Thumbnail
            size={92}
            eager
            address={
              series.representative_sop_instance_uid &&
              thumbnailAddress(
                study.archive,
                study.study_instance_uid,
                uid,
                series.representative_sop_instance_uid,
              )
            }
          />
          <span className={classes.progress} data-done={share >= 100}>
            <span style={{ width: `${share}%` }} />
          </span>
        </span>
        <span className={classes.text}>
          <span className={classes.head}>
            <ModalityBadge modality={series.modality} />
            {series.series_number !== null && (
              <span className={classes.number}>
                {t('viewer.seriesShort')} {series.series_number}
              </span>
            )}
          </span>
          <span className={classes.description}>
            {series.description || series.body_part || t('viewer.seriesUnnamed')}
          </span>
          <span className={classes.count}>
            {loading
              ? t('viewer.loadedShort', { loaded: progress.loaded, count: progress.total ?? 0 })
              : series.representative_sop_instance_uid
                ? t('study.images', { count: progress.total ?? series.number_of_instances })
                : t('study.documents', { count: series.number_of_instances })}
            {series.state === 'receiving' && ` · ${t('study.state.receiving')}`}
          </span>
          {progress.failed > 0 && (
            <span className={classes.failed}>
              {t('viewer.failedShort', { count: progress.failed })}
            </span>
          )}
        </span>
      </button>
    </li>
  );
}
