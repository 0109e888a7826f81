import { Button, Skeleton, TextInput } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { SearchIcon } from '../../components/icons';
import { EmptyNotice, ProblemNotice } from '../../components/notice';
import { Page } from '../../components/page';
import { useTranslation } from '../../i18n';
import { searchPatients } from '../../lib/api';
import { PatientList } from './patient-list';
import classes from './patient-search-page.module.css';

/** The latest search, in memory only: a way back from a patient must not put it in an address. */
const latest = { query: '' };

export function PatientSearchPage() {
  const { t } = useTranslation();
  const [text, setText] = useState(latest.query);
  const [query, setQuery] = useState(latest.query);
  const matches = useQuery({
    queryKey: ['patients', query],
    queryFn: ({ signal }) => searchPatients(query, signal),
    gcTime: 60_000,
  });

  const search = (next: string) => {
    latest.query = next;
    setText(next);
    setQuery(next);
  };
  const submit = (event: FormEvent) => {
    event.preventDefault();
    const next = text.trim();
    if (next === query) void matches.refetch();
    else search(next);
  };

  const patients = matches.data?.patients ?? [];
  const announcement =
    matches.isSuccess && !matches.isPlaceholderData
      ? query
        ? t(matches.data.more ? 'patients.foundMore' : 'patients.found', { count: patients.length })
        : t('patients.latestCount', { count: patients.length })
      : '';

  return (
    <Page title={t('patients.title')} lead={t('patients.lead')}>
      {/* biome-ignore lint/a11y/useSemanticElements: <search> is not yet known to all browsers in use */}
      <form role="search" className={classes.search} onSubmit={submit} autoComplete="off">
        <TextInput
          className={classes.field}
          size="md"
          label={t('patients.search.label')}
          description={t('patients.search.hint')}
          inputWrapperOrder={['label', 'input', 'description']}
          leftSection={<SearchIcon size={18} />}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          maxLength={200}
          spellCheck={false}
          autoComplete="off"
          type="search"
        />
        <Button type="submit" size="md" loading={matches.isFetching && matches.isPlaceholderData}>
          {t('patients.search.submit')}
        </Button>
      </form>

      <section aria-labelledby="patients-heading" className={classes.results}>
        <div className={classes.resultsHeading}>
          <h2 id="patients-heading">{query ? t('patients.results') : t('patients.latest')}</h2>
          <p role="status" className={classes.count}>
            {announcement}
          </p>
          {query && (
            <Button size="compact-sm" variant="subtle" onClick={() => search('')}>
              {t('patients.search.clear')}
            </Button>
          )}
        </div>
        {matches.isPending ? (
          <ListSkeleton />
        ) : matches.isError ? (
          <ProblemNotice error={matches.error} onRetry={() => void matches.refetch()} />
        ) : patients.length === 0 ? (
          <div className={classes.card}>
            <EmptyNotice title={query ? t('patients.none') : t('patients.empty')}>
              <p>{query ? t('patients.none.advice') : t('patients.empty.advice')}</p>
            </EmptyNotice>
          </div>
        ) : (
          <PatientList patients={patients} />
        )}
      </section>
    </Page>
  );
}

function ListSkeleton() {
  return (
    <div className={classes.skeletons} aria-hidden="true">
      {['a', 'b', 'c', 'd', 'e', 'f'].map((row) => (
        <Skeleton key={row} height={56} radius="md" />
      ))}
    </div>
  );
}
