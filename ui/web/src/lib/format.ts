/** How values are written: dates as in Swedish records, person numbers with their hyphen, sizes in powers of ten. */

export interface PersonName {
  family: string;
  given: string;
}

/** The alphabetic family and given names of a PN value (PS3.5 §6.2.1); empty parts are empty texts. */
export function personName(value: string): PersonName {
  const groups = value.split('=');
  const group = groups.find((candidate) => candidate.replaceAll('^', '').trim()) ?? '';
  const [family = '', given = '', middle = ''] = group.split('^').map((part) => part.trim());
  return { family, given: [given, middle].filter(Boolean).join(' ') };
}

/** A twelve-digit person number as YYYYMMDD-NNNN; any other identifier as it is. */
export function personNumber(identifier: string): string {
  return /^\d{12}$/.test(identifier)
    ? `${identifier.slice(0, 8)}-${identifier.slice(8)}`
    : identifier;
}

/** Whole years from the date of birth to the given day (both YYYY-MM-DD); null when either is missing. */
export function ageAt(birthDate: string | null, day: string | null): number | null {
  if (!birthDate || !day || birthDate > day) return null;
  const years = Number(day.slice(0, 4)) - Number(birthDate.slice(0, 4));
  return day.slice(5) < birthDate.slice(5) ? years - 1 : years;
}

/** Today in the zone of the browser, as YYYY-MM-DD. */
export function today(): string {
  return dateOf(new Date());
}

function dateOf(instant: Date): string {
  return new Intl.DateTimeFormat('sv-SE').format(instant);
}

/** An instant as YYYY-MM-DD HH:MM in the zone of the browser; the text itself when it is no instant. */
export function dateTime(instant: string): string {
  const at = new Date(instant);
  if (Number.isNaN(at.getTime())) return instant;
  return `${dateOf(at)} ${at.toTimeString().slice(0, 5)}`;
}

/** An instant as HH:MM:SS in the zone of the browser. */
export function timeOfDay(instant: string | Date): string {
  return new Date(instant).toTimeString().slice(0, 8);
}

/** A DICOM or ISO time of day as HH:MM; empty when there is none. */
export function clock(time: string | null): string {
  return time ? time.slice(0, 5) : '';
}

/** A DICOM date (YYYYMMDD) as YYYY-MM-DD; any other text as it is. */
export function dicomDate(value: string): string {
  return /^\d{8}$/.test(value)
    ? `${value.slice(0, 4)}-${value.slice(4, 6)}-${value.slice(6)}`
    : value;
}

const SIZE_UNITS = ['byte', 'kilobyte', 'megabyte', 'gigabyte', 'terabyte', 'petabyte'] as const;

/** A size with at most three significant digits and its unit, such as "52,4 MB". */
export function size(bytes: number, locale: string): string {
  let value = bytes;
  let step = 0;
  while (value >= 999.5 && step < SIZE_UNITS.length - 1) {
    value /= 1000;
    step += 1;
  }
  return new Intl.NumberFormat(locale, {
    style: 'unit',
    unit: SIZE_UNITS[step],
    unitDisplay: step === 0 ? 'narrow' : 'short',
    maximumSignificantDigits: 3,
  }).format(value);
}
