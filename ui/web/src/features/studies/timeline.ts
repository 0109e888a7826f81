import type { Study } from '../../lib/api';

/** Newest first by date and time; studies without a date last. */
function newestFirst(one: Study, other: Study): number {
  const key = (study: Study) => `${study.study_date ?? ''} ${study.study_time ?? ''}`;
  return key(other).localeCompare(key(one));
}

/** Studies grouped by their year, both newest first; '' is the year of a study without a date. */
export function byYear(studies: Study[]): [string, Study[]][] {
  const years = new Map<string, Study[]>();
  for (const study of [...studies].sort(newestFirst)) {
    const year = study.study_date?.slice(0, 4) ?? '';
    years.set(year, [...(years.get(year) ?? []), study]);
  }
  return [...years];
}

/** Each modality and how many of the studies have it, the most common first. */
export function modalityCounts(studies: Study[]): [string, number][] {
  const counts = new Map<string, number>();
  for (const study of studies)
    for (const modality of study.modalities) counts.set(modality, (counts.get(modality) ?? 0) + 1);
  return [...counts].sort(([a, n], [b, m]) => m - n || a.localeCompare(b));
}
