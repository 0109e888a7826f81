import { expect, test } from 'vitest';
import type { Study } from '../../lib/api';
import { byYear, modalityCounts } from './timeline';

function study(uid: string, date: string | null, time: string | null, modalities: string[]): Study {
  return {
    archive: 'A',
    study_instance_uid: uid,
    study_date: date,
    study_time: time,
    description: '',
    accession_number: '',
    modalities,
    body_parts: [],
    institution: '',
    referring_physician: '',
    number_of_series: 1,
    number_of_instances: 1,
    size_bytes: 1,
    state: 'complete',
    received_at: '2024-05-01T12:00:00Z',
    thumbnail: null,
  };
}

const studies = [
  study('1', '2023-02-01', '08:00:00', ['CT']),
  study('2', null, null, ['SR']),
  study('3', '2024-05-01', '09:00:00', ['MR', 'SR']),
  study('4', '2024-05-01', '13:05:00', ['CT', 'SR']),
];

test('studies stand under their year, newest first, those without a date last', () => {
  expect(byYear(studies).map(([year, of]) => [year, of.map((s) => s.study_instance_uid)])).toEqual([
    ['2024', ['4', '3']],
    ['2023', ['1']],
    ['', ['2']],
  ]);
});

test('each modality is counted once per study, the most common first', () => {
  expect(modalityCounts(studies)).toEqual([
    ['SR', 3],
    ['CT', 2],
    ['MR', 1],
  ]);
});
