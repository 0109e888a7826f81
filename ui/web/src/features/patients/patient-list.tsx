import { Link } from '@tanstack/react-router';
import { ForwardIcon } from '../../components/icons';
import { PersonName, PersonNumber } from '../../components/person';
import { moveBetweenRows } from '../../components/row-navigation';
import { useTranslation } from '../../i18n';
import type { Patient } from '../../lib/api';
import { ageAt, today } from '../../lib/format';
import classes from './patient-list.module.css';

/** Matching patients as one link each; ↑ and ↓ move between them. */
export function PatientList({ patients }: { patients: Patient[] }) {
  const { t } = useTranslation();
  return (
    <div className={classes.card}>
      <div className={classes.head} aria-hidden="true">
        <span>{t('patients.column.name')}</span>
        <span>{t('patients.column.identifier')}</span>
        <span>{t('patients.column.person')}</span>
        <span>{t('patients.column.studies')}</span>
        <span>{t('patients.column.latest')}</span>
        <span />
      </div>
      <ul onKeyDown={moveBetweenRows}>
        {patients.map((patient) => (
          <PatientRow key={patient.patient_key} patient={patient} />
        ))}
      </ul>
    </div>
  );
}

function PatientRow({ patient }: { patient: Patient }) {
  const { t } = useTranslation();
  const age = ageAt(patient.birth_date, today());
  return (
    <li>
      <Link
        to="/patient/$patientKey"
        params={{ patientKey: patient.patient_key }}
        className={classes.row}
        data-row
        data-testid="patient-row"
      >
        <span className={classes.name}>
          <PersonName value={patient.name} fallback={t('patient.nameMissing')} />
        </span>
        <span>
          <PersonNumber value={patient.patient_identifier} />
          {patient.issuer && <span className={classes.issuer}> {patient.issuer}</span>}
        </span>
        <span className={classes.muted}>
          {[
            patient.sex && t(`patient.sex.${patient.sex}`),
            age !== null && t('patient.age', { count: age }),
          ]
            .filter(Boolean)
            .join(', ')}
        </span>
        <span>{t('patient.studies', { count: patient.number_of_studies })}</span>
        <span className={classes.latest}>
          <span className={classes.label}>{t('patients.column.latest')} </span>
          {patient.latest_study_date ?? t('study.dateMissing')}
        </span>
        <ForwardIcon size={16} className={classes.arrow} />
      </Link>
    </li>
  );
}
