import { useTranslation } from '../i18n';
import type { ReceptionState } from '../lib/api';
import { CheckIcon, ReceivingIcon } from './icons';
import classes from './state-badge.module.css';

/** Whether images are still arriving, by icon and by word. */
export function StateBadge({ state }: { state: ReceptionState }) {
  const { t } = useTranslation();
  return (
    <span className={classes.state} data-state={state}>
      {state === 'receiving' ? <ReceivingIcon size={14} /> : <CheckIcon size={14} />}
      {t(state === 'receiving' ? 'study.state.receiving' : 'study.state.complete')}
    </span>
  );
}
