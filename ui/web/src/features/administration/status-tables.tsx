import { Link } from '@tanstack/react-router';
import type { ReactNode } from 'react';
import { type MessageKey, useTranslation } from '../../i18n';
import type { ArchiveEvent, Status } from '../../lib/api';
import { dateTime, size, timeOfDay } from '../../lib/format';
import classes from './status-page.module.css';

/** A table in a region of its own that scrolls sideways on a narrow screen. */
function WideTable({ label, children }: { label: string; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/useSemanticElements: no form field stands in it
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling part must be reachable by keyboard (WCAG 2.1.1)
    <div className={classes.scroller} role="group" tabIndex={0} aria-label={label}>
      <table className={classes.table}>{children}</table>
    </div>
  );
}

export function ArchivesTable({ archives }: { archives: Status['archives'] }) {
  const { t, number, locale } = useTranslation();
  return (
    <WideTable label={t('administration.archives')}>
      <thead>
        <tr>
          <th scope="col">{t('administration.aeTitle')}</th>
          <th scope="col">{t('administration.name')}</th>
          <th scope="col">{t('administration.connection')}</th>
          <th scope="col" data-number>
            {t('administration.patients')}
          </th>
          <th scope="col" data-number>
            {t('administration.studies')}
          </th>
          <th scope="col" data-number>
            {t('administration.series')}
          </th>
          <th scope="col" data-number>
            {t('administration.instances')}
          </th>
          <th scope="col" data-number>
            {t('administration.size')}
          </th>
        </tr>
      </thead>
      <tbody>
        {archives.map((archive) => (
          <tr key={archive.ae_title}>
            <th scope="row">
              <Link to="/samverkan" search={{ archive: archive.ae_title }}>
                {archive.ae_title}
              </Link>
            </th>
            <td>{archive.name}</td>
            <td>{archive.connection}</td>
            <td data-number>{number(archive.patients)}</td>
            <td data-number>{number(archive.studies)}</td>
            <td data-number>{number(archive.series)}</td>
            <td data-number>{number(archive.instances)}</td>
            <td data-number>{size(archive.size_bytes, locale)}</td>
          </tr>
        ))}
      </tbody>
    </WideTable>
  );
}

export function ConnectionsTable({ connections }: { connections: Status['connections'] }) {
  const { t } = useTranslation();
  return (
    <WideTable label={t('administration.connections')}>
      <thead>
        <tr>
          <th scope="col">{t('administration.connection')}</th>
          <th scope="col">{t('administration.environment')}</th>
          <th scope="col">{t('administration.archive')}</th>
          <th scope="col">{t('administration.nodes')}</th>
        </tr>
      </thead>
      <tbody>
        {connections.map((connection) => (
          <tr key={connection.name}>
            <th scope="row">{connection.name}</th>
            <td>
              {connection.environment === 'test'
                ? t('administration.environment.test')
                : connection.environment === 'production'
                  ? t('administration.environment.production')
                  : connection.environment}
            </td>
            <td>{connection.archive}</td>
            <td>
              {connection.nodes.length === 0 ? (
                <span className={classes.muted}>{t('administration.nodes.none')}</span>
              ) : (
                <ul className={classes.nodes}>
                  {connection.nodes.map((node) => (
                    <li key={`${node.ae_title} ${node.host} ${node.port}`}>
                      <strong>{node.ae_title}</strong> {node.host}:{node.port}
                    </li>
                  ))}
                </ul>
              )}
            </td>
          </tr>
        ))}
      </tbody>
    </WideTable>
  );
}

const EVENT_NAMES: Record<string, MessageKey> = {
  study_created: 'administration.event.study_created',
  series_created: 'administration.event.series_created',
  series_sealed: 'administration.event.series_sealed',
  series_reopened: 'administration.event.series_reopened',
  instances_deleted: 'administration.event.instances_deleted',
  instances_rejected: 'administration.event.instances_rejected',
  instances_restored: 'administration.event.instances_restored',
};

export function EventsTable({ events }: { events: ArchiveEvent[] }) {
  const { t } = useTranslation();
  return (
    <WideTable label={t('administration.events')}>
      <thead>
        <tr>
          <th scope="col">{t('administration.event.when')}</th>
          <th scope="col">{t('administration.event.what')}</th>
          <th scope="col">{t('administration.archive')}</th>
          <th scope="col">{t('administration.event.study')}</th>
        </tr>
      </thead>
      <tbody>
        {events.map((event) => (
          <tr key={event.event_id}>
            <td>
              {dateTime(event.occurred_at).slice(0, 10)} {timeOfDay(event.occurred_at)}
            </td>
            <td>
              {EVENT_NAMES[event.kind] ? t(EVENT_NAMES[event.kind] as MessageKey) : event.kind}
            </td>
            <td>{event.archive}</td>
            <td className={classes.uid}>
              {event.study_instance_uid ? (
                <Link
                  to="/viewer/$aeTitle/$studyInstanceUid"
                  params={{ aeTitle: event.archive, studyInstanceUid: event.study_instance_uid }}
                  search={{ series: event.series_instance_uid ?? undefined }}
                  preload={false}
                >
                  {event.series_instance_uid ?? event.study_instance_uid}
                </Link>
              ) : (
                '–'
              )}
            </td>
          </tr>
        ))}
      </tbody>
    </WideTable>
  );
}
