import { Progress, Skeleton } from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import type { ReactNode } from 'react';
import { CheckIcon, ErrorIcon, WarningIcon } from '../../components/icons';
import { EmptyNotice, InfoNotice, ProblemNotice } from '../../components/notice';
import { Page } from '../../components/page';
import { type MessageKey, useTranslation } from '../../i18n';
import { readStatus, type Status } from '../../lib/api';
import { dateTime, size, timeOfDay } from '../../lib/format';
import classes from './status-page.module.css';
import { ArchivesTable, ConnectionsTable, EventsTable } from './status-tables';

const REFRESH_MS = 5000;
const LITTLE_SPACE = 0.1;

export function StatusPage() {
  const { t } = useTranslation();
  const status = useQuery({
    queryKey: ['status'],
    queryFn: ({ signal }) => readStatus(signal),
    refetchInterval: REFRESH_MS,
  });
  return (
    <Page
      title={t('administration.title')}
      lead={t('administration.lead')}
      wide
      aside={
        status.data && (
          <p className={classes.updated}>
            {t('administration.version', { version: status.data.version })}
            {' · '}
            {t('administration.updated', { time: timeOfDay(new Date(status.dataUpdatedAt)) })}
          </p>
        )
      }
    >
      {status.isError && (
        <ProblemNotice error={status.error} onRetry={() => void status.refetch()} />
      )}
      {status.data ? (
        <Overview status={status.data} />
      ) : (
        status.isPending && (
          <div className={classes.cards} aria-hidden="true">
            <Skeleton height={170} radius="md" />
            <Skeleton height={170} radius="md" />
            <Skeleton height={170} radius="md" />
          </div>
        )
      )}
    </Page>
  );
}

function Overview({ status }: { status: Status }) {
  const { t } = useTranslation();
  return (
    <>
      <Health status={status} />
      <div className={classes.cards}>
        <Roles status={status} />
        <Storage status={status} />
        <Jobs status={status} />
      </div>
      <Panel id="archives" heading={t('administration.archives')}>
        {status.archives.length > 0 ? (
          <ArchivesTable archives={status.archives} />
        ) : (
          <EmptyNotice title={t('administration.archives.none')} />
        )}
      </Panel>
      <Panel
        id="connections"
        heading={t('administration.connections')}
        aside={t('administration.dimsePort', { port: String(status.dimse_port) })}
      >
        {status.connections.length > 0 ? (
          <ConnectionsTable connections={status.connections} />
        ) : (
          <EmptyNotice title={t('administration.connections.none')} />
        )}
      </Panel>
      <Panel id="events" heading={t('administration.events')}>
        {status.events.length > 0 ? (
          <EventsTable events={status.events} />
        ) : (
          <EmptyNotice title={t('administration.events.none')} />
        )}
      </Panel>
    </>
  );
}

/** One sentence on the whole system, said aloud only when it changes. */
function Health({ status }: { status: Status }) {
  const { t } = useTranslation();
  const waiting = status.roles.filter((role) => !role.ready).length;
  const free = status.storage.free_bytes / Math.max(status.storage.total_bytes, 1);
  const sentence =
    waiting > 0
      ? t('administration.health.roles', { count: waiting })
      : status.jobs.failed > 0
        ? t('administration.health.jobs', { count: status.jobs.failed })
        : free < LITTLE_SPACE
          ? t('administration.health.space')
          : null;
  return (
    <div role="status">
      <InfoNotice kind={sentence ? 'warning' : 'success'}>
        {sentence ?? t('administration.health.good')}
      </InfoNotice>
    </div>
  );
}

interface PanelProps {
  id: string;
  heading: string;
  aside?: string;
  children: ReactNode;
}

function Panel({ id, heading, aside, children }: PanelProps) {
  return (
    <section className={classes.panel} aria-labelledby={id}>
      <div className={classes.panelHead}>
        <h2 id={id}>{heading}</h2>
        {aside && <span className={classes.aside}>{aside}</span>}
      </div>
      {children}
    </section>
  );
}

const ROLE_NAMES: Record<string, MessageKey> = {
  web: 'administration.role.web',
  dimse: 'administration.role.dimse',
  worker: 'administration.role.worker',
};

function Roles({ status }: { status: Status }) {
  const { t } = useTranslation();
  return (
    <Panel id="roles" heading={t('administration.roles')}>
      <ul className={classes.roles}>
        {status.roles.map(({ role, ready, beat_at, detail }) => (
          <li key={role}>
            <span className={classes.role}>
              {ROLE_NAMES[role] ? t(ROLE_NAMES[role]) : role}
              <span className={classes.beat} title={dateTime(beat_at)}>
                {t('administration.beat', { time: timeOfDay(beat_at) })}
                {detail && ` · ${detail}`}
              </span>
            </span>
            <span className={classes.ready} data-ready={ready}>
              {ready ? <CheckIcon size={15} /> : <ErrorIcon size={15} />}
              {t(ready ? 'administration.ready' : 'administration.notReady')}
            </span>
          </li>
        ))}
      </ul>
    </Panel>
  );
}

function Storage({ status }: { status: Status }) {
  const { t, locale } = useTranslation();
  const { total_bytes, free_bytes } = status.storage;
  const used = total_bytes > 0 ? 1 - free_bytes / total_bytes : 0;
  const stored = status.archives.reduce((sum, archive) => sum + archive.size_bytes, 0);
  const percent = new Intl.NumberFormat(locale, { style: 'percent' }).format(used);
  return (
    <Panel id="storage" heading={t('administration.storage')}>
      <div className={classes.storage}>
        <p className={classes.figure}>
          {size(free_bytes, locale)} <span>{t('administration.storage.free')}</span>
        </p>
        <Progress
          value={used * 100}
          size="md"
          color={used > 1 - LITTLE_SPACE ? 'var(--bfr-danger)' : 'var(--bfr-accent)'}
          aria-label={t('administration.storage.used', { percent })}
        />
        <p className={classes.muted}>
          {t('administration.storage.used', { percent })}{' '}
          {t('administration.storage.total', { size: size(total_bytes, locale) })}
        </p>
        <p className={classes.muted}>
          {t('administration.storage.images', { size: size(stored, locale) })}
        </p>
      </div>
    </Panel>
  );
}

function Jobs({ status }: { status: Status }) {
  const { t, number } = useTranslation();
  const { todo, doing, failed } = status.jobs;
  return (
    <Panel id="jobs" heading={t('administration.jobs')}>
      <dl className={classes.jobs}>
        <div>
          <dt>{t('administration.jobs.todo')}</dt>
          <dd>{number(todo)}</dd>
        </div>
        <div>
          <dt>{t('administration.jobs.doing')}</dt>
          <dd>{number(doing)}</dd>
        </div>
        <div data-failed={failed > 0}>
          <dt>
            {failed > 0 && <WarningIcon size={14} />}
            {t('administration.jobs.failed')}
          </dt>
          <dd>{number(failed)}</dd>
        </div>
      </dl>
    </Panel>
  );
}
