import { VisuallyHidden } from '@mantine/core';
import { Link } from '@tanstack/react-router';
import {
  createColumnHelper,
  createSortedRowModel,
  rowSortingFeature,
  tableFeatures,
  useTable,
} from '@tanstack/react-table';
import { useMemo } from 'react';
import { SortDownIcon, SortIcon, SortUpIcon } from '../../components/icons';
import { ModalityBadges } from '../../components/modality-badge';
import { PersonName, PersonNumber } from '../../components/person';
import { moveBetweenRows } from '../../components/row-navigation';
import { StateBadge } from '../../components/state-badge';
import { type Translation, useTranslation } from '../../i18n';
import type { ReceivedStudy } from '../../lib/api';
import { clock, dateTime, personName } from '../../lib/format';
import classes from './received-studies-table.module.css';
import type { SortColumn, Sorting } from './sorting';

const swedish = new Intl.Collator('sv', { numeric: true });

const features = tableFeatures({
  rowSortingFeature,
  sortedRowModel: createSortedRowModel(),
  sortFns: {
    text: (one, other, column) =>
      swedish.compare(String(one.getValue(column)), String(other.getValue(column))),
    amount: (one, other, column) => Number(one.getValue(column)) - Number(other.getValue(column)),
  },
});

const helper = createColumnHelper<typeof features, ReceivedStudy>();

function sortableName(value: string): string {
  const { family, given } = personName(value);
  return `${family} ${given}`;
}

function columnsOf({ t, number }: Translation) {
  return helper.columns([
    helper.accessor((study) => sortableName(study.patient.name), {
      id: 'patient',
      header: t('patients.column.name'),
      sortFn: 'text',
      cell: ({ row: { original: study } }) => (
        <Link
          to="/viewer/$aeTitle/$studyInstanceUid"
          params={{ aeTitle: study.archive, studyInstanceUid: study.study_instance_uid }}
          className={classes.open}
          data-row
          data-testid="study-row"
        >
          <PersonName value={study.patient.name} fallback={t('patient.nameMissing')} />
        </Link>
      ),
    }),
    helper.accessor((study) => study.patient.patient_identifier, {
      id: 'identifier',
      header: t('patients.column.identifier'),
      sortFn: 'text',
      cell: ({ row: { original: study } }) => (
        <PersonNumber value={study.patient.patient_identifier} />
      ),
    }),
    helper.accessor((study) => `${study.study_date ?? ''} ${study.study_time ?? ''}`, {
      id: 'study_date',
      header: t('collaborations.column.studyDate'),
      sortFn: 'text',
      cell: ({ row: { original: study } }) =>
        study.study_date ? `${study.study_date} ${clock(study.study_time)}` : '–',
    }),
    helper.accessor((study) => study.modalities.join(' '), {
      id: 'modalities',
      header: t('collaborations.modality'),
      sortFn: 'text',
      cell: ({ row: { original: study } }) => (
        <ModalityBadges modalities={study.modalities} limit={3} />
      ),
    }),
    helper.accessor('description', {
      header: t('collaborations.column.description'),
      sortFn: 'text',
      cell: ({ getValue }) => getValue() || '–',
    }),
    helper.accessor('accession_number', {
      header: t('study.accession'),
      sortFn: 'text',
      cell: ({ getValue }) => getValue() || '–',
    }),
    helper.accessor('archive', { header: t('collaborations.archive'), sortFn: 'text' }),
    helper.accessor('number_of_instances', {
      id: 'images',
      header: t('collaborations.column.images'),
      sortFn: 'amount',
      cell: ({ getValue }) => number(getValue()),
    }),
    helper.accessor('received_at', {
      header: t('collaborations.column.received'),
      sortFn: 'text',
      cell: ({ getValue }) => dateTime(getValue()),
    }),
    helper.display({
      id: 'state',
      header: t('collaborations.column.state'),
      cell: ({ row: { original: study } }) => <StateBadge state={study.state} />,
    }),
  ]);
}

interface ReceivedStudiesTableProps {
  studies: ReceivedStudy[];
  sorting: Sorting;
  onSort: (sorting: Sorting) => void;
}

/** The newest received examinations; a header sorts, ↑ and ↓ move, Enter opens. */
export function ReceivedStudiesTable({ studies, sorting, onSort }: ReceivedStudiesTableProps) {
  const translation = useTranslation();
  const { t } = translation;
  const columns = useMemo(() => columnsOf(translation), [translation]);
  const table = useTable({
    features,
    columns,
    data: studies,
    getRowId: (study) => `${study.archive} ${study.study_instance_uid}`,
    state: { sorting: [{ id: sorting.column, desc: sorting.falling }] },
  });
  const sortBy = (column: SortColumn) =>
    onSort({ column, falling: sorting.column === column ? !sorting.falling : false });

  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard (WCAG 2.1.1)
    <section className={classes.scroller} tabIndex={0} aria-label={t('collaborations.title')}>
      <table className={classes.table}>
        <thead>
          {table.getHeaderGroups().map((group) => (
            <tr key={group.id}>
              {group.headers.map((header) => {
                const sorted = sorting.column === header.column.id;
                return (
                  <th
                    key={header.id}
                    scope="col"
                    data-column={header.column.id}
                    aria-sort={sorted ? (sorting.falling ? 'descending' : 'ascending') : undefined}
                  >
                    {header.column.getCanSort() ? (
                      <button type="button" onClick={() => sortBy(header.column.id as SortColumn)}>
                        <table.FlexRender header={header} />
                        <VisuallyHidden>, {t('collaborations.sort')}</VisuallyHidden>
                        {!sorted ? (
                          <SortIcon size={13} className={classes.unsorted} />
                        ) : sorting.falling ? (
                          <SortDownIcon size={13} />
                        ) : (
                          <SortUpIcon size={13} />
                        )}
                      </button>
                    ) : (
                      <table.FlexRender header={header} />
                    )}
                  </th>
                );
              })}
            </tr>
          ))}
        </thead>
        <tbody onKeyDown={moveBetweenRows}>
          {table.getRowModel().rows.map((row) => (
            <tr key={row.id}>
              {row.getAllCells().map((cell) => (
                <td key={cell.id} data-column={cell.column.id}>
                  <table.FlexRender cell={cell} />
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
