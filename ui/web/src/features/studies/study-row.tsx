import { Link } from '@tanstack/react-router';
import { ModalityBadges } from '../../components/modality-badge';
import { StateBadge } from '../../components/state-badge';
import { Thumbnail } from '../../components/thumbnail';
import { useTranslation } from '../../i18n';
import type { Study } from '../../lib/api';
import { thumbnailAddress } from '../../lib/dicomweb';
import { clock, personName, size } from '../../lib/format';
import classes from './study-row.module.css';

/** One examination of the timeline; the whole row is the link to its images. */
export function StudyRow({ study }: { study: Study }) {
  const { t, locale } = useTranslation();
  const referrer = personName(study.referring_physician);
  const referredBy = [referrer.given, referrer.family].filter(Boolean).join(' ');
  return (
    <li>
      <Link
        to="/viewer/$aeTitle/$studyInstanceUid"
        params={{ aeTitle: study.archive, studyInstanceUid: study.study_instance_uid }}
        className={classes.row}
        data-row
        data-testid="study-row"
      >
        <Thumbnail
          size={84}
          address={
            study.thumbnail &&
            thumbnailAddress(
              study.archive,
              study.study_instance_uid,
              study.thumbnail.series_instance_uid,
              study.thumbnail.sop_instance_uid,
            )
          }
        />
        <span className={classes.what}>
          <span className={classes.when}>
            <span className={classes.date}>{study.study_date ?? t('study.dateMissing')}</span>
            <span className={classes.time}>{clock(study.study_time)}</span>
            <ModalityBadges modalities={study.modalities} />
          </span>
          <span className={classes.description}>
            {study.description || t('study.descriptionMissing')}
          </span>
          <span className={classes.muted}>
            {[
              study.body_parts.join(', '),
              study.institution,
              referredBy && t('study.referredBy', { name: referredBy }),
            ]
              .filter(Boolean)
              .join(' · ')}
          </span>
        </span>
        <span className={classes.source}>
          <span>
            <span className={classes.label}>{t('study.accession')}</span>{' '}
            {study.accession_number || '–'}
          </span>
          <span>
            <span className={classes.label}>{t('study.archive')}</span> {study.archive}
          </span>
        </span>
        <span className={classes.extent}>
          <StateBadge state={study.state} />
          <span>
            {t('study.series', { count: study.number_of_series })},{' '}
            {t('study.images', { count: study.number_of_instances })}
          </span>
          <span className={classes.muted}>{size(study.size_bytes, locale)}</span>
        </span>
      </Link>
    </li>
  );
}
