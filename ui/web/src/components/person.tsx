import { personName, personNumber } from '../lib/format';
import classes from './person.module.css';

/** A DICOM person name in reading order, the family name stronger; the fallback when it is empty. */
export function PersonName({ value, fallback }: { value: string; fallback: string }) {
  const { family, given } = personName(value);
  if (!family && !given) return <span className={classes.missing}>{fallback}</span>;
  return (
    <span>
      {given && `${given} `}
      <span className={classes.family}>{family}</span>
    </span>
  );
}

export function PersonNumber({ value }: { value: string }) {
  return <span className={classes.number}>{personNumber(value)}</span>;
}
