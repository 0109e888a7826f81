import { Button, Chip, Group, Skeleton } from '@mantine/core';
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import { getRouteApi } from '@tanstack/react-router';
import { useState } from 'react';
import { ReceivingIcon } from '../../components/icons';
import { EmptyNotice, InfoNotice, ProblemNotice } from '../../components/notice';
import { Page } from '../../components/page';
import { useTranslation } from '../../i18n';
import { type ReceivedStudiesFilter, type ReceivedStudy, readReceivedStudies } from '../../lib/api';
import classes from './received-studies-page.module.css';
import { ReceivedStudiesTable } from './received-studies-table';
import { type Sorting, sortingFromText, textFromSorting } from './sorting';

const route = getRouteApi('/samverkan');
const LIMIT = 100;
const POLL_MS = 15_000;

function useReceivedStudies(filter: ReceivedStudiesFilter) {
  return useQuery({
    queryKey: ['received-studies', filter],
    queryFn: ({ signal }) => readReceivedStudies(filter, signal),
    placeholderData: keepPreviousData,
    refetchInterval: POLL_MS,
  });
}

function keyOf(study: ReceivedStudy): string {
  return `${study.archive} ${study.study_instance_uid}`;
}

/** The distinct values of a facet, the chosen one always among them. */
function choices(found: string[], chosen: string | undefined): string[] {
  return [...new Set(chosen ? [...found, chosen] : found)].sort((a, b) => a.localeCompare(b));
}

export function ReceivedStudiesPage() {
  const { t } = useTranslation();
  const { modality, archive, sort } = route.useSearch();
  const navigate = route.useNavigate();
  const all = useReceivedStudies({ limit: LIMIT });
  const matching = useReceivedStudies({ limit: LIMIT, modality, archive });

  // Rows never move under the cursor: what arrives later waits for a click.
  const [held, setHeld] = useState<{ filter: string; studies: ReceivedStudy[] } | null>(null);
  const filter = `${modality ?? ''} ${archive ?? ''}`;
  const latest = matching.isPlaceholderData ? undefined : matching.data?.studies;
  if (latest && held?.filter !== filter) setHeld({ filter, studies: latest });
  const known = new Set(held?.studies.map(keyOf));
  const arrived = latest?.filter((study) => !known.has(keyOf(study))).length ?? 0;
  const newest = new Map(latest?.map((study) => [keyOf(study), study]));
  const shown = (held?.studies ?? []).map((study) => newest.get(keyOf(study)) ?? study);

  const everything = all.data?.studies ?? [];
  const modalities = choices(
    everything.flatMap((study) => study.modalities),
    modality,
  );
  const archives = choices(
    everything.map((study) => study.archive),
    archive,
  );
  const change = (next: { modality?: string; archive?: string; sort?: string }) =>
    void navigate({ search: (before) => ({ ...before, ...next }), replace: true });

  return (
    <Page title={t('collaborations.title')} lead={t('collaborations.lead')} wide fill>
      <InfoNotice>{t('collaborations.notYet')}</InfoNotice>
      <div className={classes.bar}>
        <Facet
          label={t('collaborations.modality')}
          options={modalities}
          chosen={modality}
          onChoose={(value) => change({ modality: value })}
        />
        <Facet
          label={t('collaborations.archive')}
          options={archives}
          chosen={archive}
          onChoose={(value) => change({ archive: value })}
        />
        <div className={classes.status}>
          <p role="status" className={classes.count}>
            {held ? t('collaborations.shown', { count: shown.length }) : ''}
            {arrived > 0 && ` ${t('collaborations.arrived', { count: arrived })}`}
          </p>
          {arrived > 0 && latest && (
            <Button
              size="compact-sm"
              leftSection={<ReceivingIcon size={14} />}
              onClick={() => setHeld({ filter, studies: latest })}
            >
              {t('collaborations.showArrived')}
            </Button>
          )}
        </div>
      </div>
      {matching.isError && !held ? (
        <ProblemNotice error={matching.error} onRetry={() => void matching.refetch()} />
      ) : !held ? (
        <div className={classes.skeletons} aria-hidden="true">
          {Array.from({ length: 14 }, (_, row) => (
            // biome-ignore lint/suspicious/noArrayIndexKey: the rows are all alike
            <Skeleton key={row} height={20} radius="sm" />
          ))}
        </div>
      ) : shown.length === 0 ? (
        <div className={classes.empty}>
          <EmptyNotice
            title={modality || archive ? t('collaborations.none') : t('collaborations.empty')}
          >
            {(modality || archive) && (
              <Button
                variant="default"
                size="xs"
                mt="sm"
                onClick={() => change({ modality: undefined, archive: undefined })}
              >
                {t('collaborations.clear')}
              </Button>
            )}
          </EmptyNotice>
        </div>
      ) : (
        <ReceivedStudiesTable
          studies={shown}
          sorting={sortingFromText(sort)}
          onSort={(next: Sorting) => change({ sort: textFromSorting(next) })}
        />
      )}
    </Page>
  );
}

interface FacetProps {
  label: string;
  options: string[];
  chosen: string | undefined;
  onChoose: (value: string | undefined) => void;
}

function Facet({ label, options, chosen, onChoose }: FacetProps) {
  const { t } = useTranslation();
  return (
    <div className={classes.facet}>
      <span className={classes.facetLabel} aria-hidden="true">
        {label}
      </span>
      <Chip.Group value={chosen ?? ''} onChange={(value) => onChoose(value || undefined)}>
        <Group gap={4} role="group" aria-label={label}>
          <Chip size="xs" value="">
            {t('collaborations.all')}
          </Chip>
          {options.map((option) => (
            <Chip size="xs" key={option} value={option}>
              {option}
            </Chip>
          ))}
        </Group>
      </Chip.Group>
    </div>
  );
}
