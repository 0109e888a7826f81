import { MantineProvider } from '@mantine/core';
import { render, screen } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { expect, test } from 'vitest';
import type { Patient, Series, Study } from '../../lib/api';
import type { DicomDataset } from '../../lib/dicomweb';
import { nameOf, valueText } from './attribute-tree';
import { DocumentView } from './document-view';

const patient: Patient = {
  patient_key: '17',
  patient_identifier: '198001029819',
  issuer: '',
  name: 'Andersson^Åsa',
  birth_date: '1980-01-02',
  sex: 'F',
  number_of_studies: 1,
  latest_study_date: '2024-05-01',
};
const study = { study_date: '2024-05-01', study_time: '13:05:00' } as Study;

function code(meaning: string) {
  return { vr: 'SQ', Value: [{ '00080104': { vr: 'LO', Value: [meaning] } }] };
}

const report: DicomDataset = {
  '00080018': { vr: 'UI', Value: ['1.2.3'] },
  '0040A043': code('Utlåtande'),
  '0040A730': {
    vr: 'SQ',
    Value: [
      {
        '0040A040': { vr: 'CS', Value: ['TEXT'] },
        '0040A043': code('Fynd'),
        '0040A160': { vr: 'UT', Value: ['<b>Inga</b> förändringar'] },
      },
      {
        '0040A040': { vr: 'CS', Value: ['NUM'] },
        '0040A043': code('Diameter'),
        '0040A300': {
          vr: 'SQ',
          Value: [{ '0040A30A': { vr: 'DS', Value: [22.3] }, '004008EA': code('mm') }],
        },
      },
    ],
  },
};

function show(document: DicomDataset, modality: string) {
  render(
    <MantineProvider env="test">
      <DocumentView
        documents={[document]}
        patient={patient}
        study={study}
        series={{ modality } as Series}
      />
    </MantineProvider>,
  );
}

test('a structured report is read as text, and markup in it stays text', () => {
  show(report, 'SR');
  expect(screen.getByRole('heading', { name: 'Utlåtande' })).toBeVisible();
  expect(screen.getByText('<b>Inga</b> förändringar')).toBeVisible();
  expect(screen.getByText('22.3 mm')).toBeVisible();
  expect(screen.getByText('19800102-9819')).toBeVisible();
});

test('a radiotherapy structure says what it is and lists its attributes', async () => {
  show(
    {
      '00080018': { vr: 'UI', Value: ['1.2.3'] },
      '30060020': {
        vr: 'SQ',
        Value: [{ '30060026': { vr: 'LO', Value: ['Hjärta'] } }],
      },
    },
    'RTSTRUCT',
  );
  expect(screen.getByText(/strålbehandling/)).toBeVisible();
  expect(screen.queryByText('Hjärta')).toBeNull();
  await userEvent.click(screen.getByText('Structure Set ROI Sequence'));
  expect(await screen.findByText('Hjärta')).toBeVisible();
});

test('attributes are named by the dictionary, private ones are not', () => {
  expect(nameOf('00100010')).toBe('Patient Name');
  expect(nameOf('0020000D')).toBe('Study Instance UID');
  expect(nameOf('00091001')).toBeNull();
});

test('binary values are named, long lists are cut and counted', () => {
  expect(valueText({ vr: 'OW', BulkDataURI: '/x' }, 'binärt')).toBe('binärt');
  const many = valueText({ vr: 'DS', Value: Array.from({ length: 300 }, () => 1) }, '');
  expect(many.endsWith('… (300)')).toBe(true);
});
