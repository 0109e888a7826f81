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

export function ModalityBadges({ modalities }: { modalities: string[] }) {
  return (
    <span className={classes.badges}>
      {modalities.map((modality) => (
        <ModalityBadge key={modality} modality={modality} />
      ))}
    </span>
  );
}
