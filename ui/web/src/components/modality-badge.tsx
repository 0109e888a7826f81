import classes from './modality-badge.module.css';

const KINDS: Record<string, string> = {
  CT: 'ct',
  MR: 'mr',
  CR: 'xray',
  DX: 'xray',
  RF: 'xray',
  XA: 'xray',
  IO: 'xray',
  PX: 'xray',
  US: 'us',
  IVUS: 'us',
  MG: 'mg',
  NM: 'nm',
  PT: 'nm',
};

/** The modality code (PS3.3 §C.7.3.1.1.1) as a small label; colour only helps, the code says it. */
export function ModalityBadge({ modality }: { modality: string }) {
  return (
    <span className={classes.badge} data-kind={KINDS[modality] ?? 'other'}>
      {modality || '–'}
    </span>
  );
}

interface ModalityBadgesProps {
  modalities: string[];
  /** How many stand on one line; the rest is counted. All of them when it is left out. */
  limit?: number;
}

export function ModalityBadges({ modalities, limit = Infinity }: ModalityBadgesProps) {
  const rest = modalities.length - limit;
  return (
    <span className={classes.badges} data-one-line={Number.isFinite(limit)}>
      {modalities.slice(0, limit).map((modality) => (
        <ModalityBadge key={modality} modality={modality} />
      ))}
      {rest > 0 && (
        <span className={classes.rest} title={modalities.slice(limit).join(', ')}>
          +{rest}
        </span>
      )}
    </span>
  );
}
