import { Chip, Group, Skeleton } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { getRouteApi, Link } from '@tanstack/react-router';
import { BackIcon } from '../../components/icons';
import { EmptyNotice, ProblemNotice } from '../../components/notice';
import { Page } from '../../components/page';
import { PersonName, PersonNumber } from '../../components/person';
import { moveBetweenRows } from '../../components/row-navigation';
import { useTranslation } from '../../i18n';
import { type Patient, readPatientHistory, type Study } from '../../lib/api';
import { ageAt, today } from '../../lib/format';
import classes from './patient-timeline-page.module.css';
import { StudyRow } from './study-row';
import { byYear, modalityCounts } from './timeline';

const route = getRouteApi('/patient/$patientKey');

export function PatientTimelinePage() {
  const { t } = useTranslation();
  const { patientKey } = route.useParams();
  const history = useQuery({
    queryKey: ['patient', patientKey],
    queryFn: ({ signal }) => readPatientHistory(patientKey, signal),
    refetchInterval: (query) =>
      query.state.data?.studies.some((study) => study.state === 'receiving') ? 5000 : false,
  });
  return (
    <Page
      title={t('timeline.title')}
      heading={
        <div className={classes.top}>
          <Link to="/" className={classes.back}>
            <BackIcon size={16} />
            {t('timeline.back')}
          </Link>
          {history.data ? (
            <PatientHeading patient={history.data.patient} />
          ) : (
            <h1 className={classes.pendingHeading}>{t('timeline.title')}</h1>
          )}
        </div>
      }
    >
      {history.isPending ? (
        <TimelineSkeleton />
      ) : history.isError ? (
        <ProblemNotice error={history.error} onRetry={() => void history.refetch()} />
      ) : (
        <Timeline studies={history.data.studies} />
      )}
    </Page>
  );
}

function PatientHeading({ patient }: { patient: Patient }) {
  const { t } = useTranslation();
  const age = ageAt(patient.birth_date, today());
  return (
    <div className={classes.patient}>
      <h1>
        <PersonName value={patient.name} fallback={t('patient.nameMissing')} />
      </h1>
      <dl className={classes.facts}>
        <div>
          <dt>{t('patient.identifier')}</dt>
          <dd>
            <PersonNumber value={patient.patient_identifier} />
            {patient.issuer && ` (${patient.issuer})`}
          </dd>
        </div>
        {patient.birth_date && (
          <div>
            <dt>{t('patient.born')}</dt>
            <dd>
              {patient.birth_date}
              {age !== null && ` (${t('patient.age', { count: age })})`}
            </dd>
          </div>
        )}
        {patient.sex && (
          <div>
            <dt>{t('patient.sex')}</dt>
            <dd>{t(`patient.sex.${patient.sex}`)}</dd>
          </div>
        )}
        <div>
          <dt>{t('patient.studiesHeading')}</dt>
          <dd>{patient.number_of_studies}</dd>
        </div>
      </dl>
    </div>
  );
}

function Timeline({ studies }: { studies: Study[] }) {
  const { t } = useTranslation();
  const navigate = route.useNavigate();
  const { modality } = route.useSearch();
  const counts = modalityCounts(studies);
  const shown = modality ? studies.filter((study) => study.modalities.includes(modality)) : studies;

  const choose = (value: string) =>
    void navigate({ search: { modality: value || undefined }, replace: true });

  return (
    <>
      <div className={classes.filter}>
        {counts.length > 1 && (
          <Chip.Group value={modality ?? ''} onChange={choose}>
            <Group gap={6} role="group" aria-label={t('timeline.filter')}>
              <Chip size="sm" value="">
                {t('timeline.all', { count: studies.length })}
              </Chip>
              {counts.map(([name, count]) => (
                <Chip size="sm" key={name} value={name}>
                  {name} ({count})
                </Chip>
              ))}
            </Group>
          </Chip.Group>
        )}
        <p role="status" className={classes.count}>
          {t('timeline.shown', { count: shown.length })}
        </p>
      </div>
      {shown.length === 0 ? (
        <EmptyNotice title={t('timeline.none')} />
      ) : (
        // biome-ignore lint/a11y/noStaticElementInteractions: the keys move between links, which work without them
        <div className={classes.years} onKeyDown={moveBetweenRows}>
          {byYear(shown).map(([year, ofYear]) => (
            <section
              key={year}
              className={classes.year}
              aria-label={year || t('study.dateMissing')}
            >
              <h2>{year || t('study.dateMissing')}</h2>
              <ul>
                {ofYear.map((study) => (
                  <StudyRow key={`${study.archive} ${study.study_instance_uid}`} study={study} />
                ))}
              </ul>
            </section>
          ))}
        </div>
      )}
    </>
  );
}

function TimelineSkeleton() {
  return (
    <div className={classes.years} aria-hidden="true">
      {['a', 'b', 'c', 'd'].map((row) => (
        <Skeleton key={row} height={104} radius="md" />
      ))}
    </div>
  );
}
