/** The sorting of the list as it stands in the address: "study_date", or "-study_date" for falling. */

export const SORTABLE = [
  'received_at',
  'study_date',
  'patient',
  'identifier',
  'modalities',
  'description',
  'accession_number',
  'archive',
  'images',
] as const;

export type SortColumn = (typeof SORTABLE)[number];

export interface Sorting {
  column: SortColumn;
  falling: boolean;
}

const NEWEST: Sorting = { column: 'received_at', falling: true };

/** Returns the sorting the text names; newest received first when it names none. */
export function sortingFromText(text: string | undefined): Sorting {
  const falling = text?.startsWith('-') ?? false;
  const column = SORTABLE.find((name) => name === text?.replace(/^-/, ''));
  return column ? { column, falling } : NEWEST;
}

/** Returns the text of a sorting; undefined for newest received first, which needs none. */
export function textFromSorting({ column, falling }: Sorting): string | undefined {
  if (column === NEWEST.column && falling === NEWEST.falling) return undefined;
  return `${falling ? '-' : ''}${column}`;
}
