import { Button } from '@mantine/core';
import type { ReactNode } from 'react';
import { useTranslation } from '../i18n';
import { Problem } from '../lib/api';
import { CheckIcon, ErrorIcon, InboxIcon, InfoIcon, RetryIcon, WarningIcon } from './icons';
import classes from './notice.module.css';

/** One sentence of what is wrong and one of what to do, from an error of any kind. */
export function useProblemText() {
  const { t } = useTranslation();
  return (error: unknown): { title: string; advice: string; detail: string | null } => {
    if (error instanceof Problem) {
      if (error.status === null)
        return { title: t('problem.unreachable'), advice: t('problem.tryAgain'), detail: null };
      if (error.status === 404)
        return {
          title: t('problem.notFound'),
          advice: t('problem.notFound.advice'),
          detail: error.detail,
        };
      if (error.status === 401 || error.status === 403)
        return {
          title: t('problem.denied'),
          advice: t('problem.denied.advice'),
          detail: error.detail,
        };
      return {
        title: t('problem.server', { status: String(error.status) }),
        advice: error.status >= 500 ? t('problem.tryAgain') : t('problem.report'),
        detail: error.detail ?? error.message,
      };
    }
    return {
      title: t('problem.unexpected'),
      advice: t('problem.report'),
      detail: error instanceof Error ? error.message : null,
    };
  };
}

export function ProblemNotice({ error, onRetry }: { error: unknown; onRetry?: () => void }) {
  const { t } = useTranslation();
  const { title, advice, detail } = useProblemText()(error);
  // Asking again does not change a refusal.
  const settled = error instanceof Problem && [401, 403, 404].includes(error.status ?? 0);
  return (
    <div className={classes.problem} role="alert">
      <ErrorIcon size={22} className={classes.problemIcon} />
      <div>
        <p className={classes.title}>{title}</p>
        <p>{advice}</p>
        {detail && <p className={classes.detail}>{detail}</p>}
        {onRetry && !settled && (
          <Button
            mt="sm"
            size="xs"
            variant="default"
            leftSection={<RetryIcon size={14} />}
            onClick={onRetry}
          >
            {t('problem.retry')}
          </Button>
        )}
      </div>
    </div>
  );
}

/** Shown where a list would stand when there is nothing to list. */
export function EmptyNotice({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className={classes.empty}>
      <InboxIcon size={40} className={classes.emptyIcon} />
      <p className={classes.title}>{title}</p>
      {children}
    </div>
  );
}

export function InfoNotice({
  children,
  kind = 'info',
}: {
  children: ReactNode;
  kind?: 'info' | 'warning' | 'success';
}) {
  const Icon = { info: InfoIcon, warning: WarningIcon, success: CheckIcon }[kind];
  return (
    <div className={classes.info} data-kind={kind}>
      <Icon size={18} />
      <p>{children}</p>
    </div>
  );
}
