import { createMemoryHistory } from '@tanstack/react-router';
import { render, screen, within } from '@testing-library/react';
import userEvent from '@testing-library/user-event';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import type { Patient, PatientHistory, ReceivedStudy, Study } from '../lib/api';
import { Application } from './application';
import { createApplicationRouter } from './router';

// The timeline starts the viewer ahead of time; there is nothing to draw with in these tests.
vi.mock('../features/viewer/viewer-page', () => ({
  ViewerPage: () => null,
  startCornerstone: () => Promise.resolve(),
}));

const patient: Patient = {
  patient_key: '17',
  patient_identifier: '198001029819',
  issuer: '',
  name: 'Andersson^Åsa',
  birth_date: '1980-01-02',
  sex: 'F',
  number_of_studies: 2,
  latest_study_date: '2024-05-01',
};

function study(uid: string, date: string, modality: string, description: string): Study {
  return {
    archive: 'BFRDEMO',
    study_instance_uid: uid,
    study_date: date,
    study_time: '13:05:00',
    description,
    accession_number: `SE${uid}`,
    modalities: [modality],
    body_parts: ['CHEST'],
    institution: 'Röntgen',
    referring_physician: 'Svensson^Eva',
    number_of_series: 2,
    number_of_instances: 200,
    size_bytes: 52_400_000,
    state: 'complete',
    received_at: `${date}T12:00:00Z`,
    thumbnail: null,
  };
}

const history: PatientHistory = {
  patient,
  studies: [
    study('1.2', '2024-05-01', 'CT', 'DT Thorax'),
    study('1.3', '2023-02-01', 'MR', 'MR Hjärna'),
  ],
};
const received: ReceivedStudy[] = history.studies.map((one, at) => ({
  ...one,
  patient: at === 0 ? patient : { ...patient, patient_key: '18', name: 'Öberg^Karl' },
}));

const answers: Record<string, unknown> = {
  '/api/session': { subject: 'loopback', kind: 'local', version: '0.1.0' },
  '/api/patients/search': { patients: [patient], more: false },
  '/api/patients/17': history,
  '/api/studies': { studies: received },
};

const asked = vi.fn((input: RequestInfo | URL, _?: RequestInit) => {
  const path = String(input).split('?')[0] ?? '';
  const body = answers[path];
  return Promise.resolve(
    body
      ? Response.json(body)
      : Response.json(
          { title: 'Not found', status: 404, detail: 'There is no such patient' },
          {
            status: 404,
            headers: { 'content-type': 'application/problem+json' },
          },
        ),
  );
});

beforeEach(() => {
  localStorage.clear();
  asked.mockClear();
  vi.stubGlobal('fetch', asked);
  window.scrollTo = () => undefined;
});
afterEach(() => vi.unstubAllGlobals());

function open(address: string) {
  const memory = createMemoryHistory({ initialEntries: [address] });
  render(<Application router={createApplicationRouter(memory)} env="test" />);
  return memory;
}

test('what is searched for goes in the body of the question, never in the address or the title', async () => {
  const memory = open('/');
  await userEvent.type(await screen.findByLabelText('Personnummer eller namn'), '19800102-9819');
  await userEvent.click(screen.getByRole('button', { name: 'Sök' }));
  expect(await screen.findByRole('heading', { name: 'Träffar' })).toBeVisible();

  const searches = asked.mock.calls.filter(([path]) => path === '/api/patients/search');
  expect(searches.map(([, init]) => JSON.parse(String(init?.body)).query)).toEqual([
    '',
    '19800102-9819',
  ]);
  expect(asked.mock.calls.every(([path]) => !String(path).includes('9819'))).toBe(true);
  expect(memory.location.href).toBe('/');
  expect(JSON.stringify(memory.location.state)).not.toContain('9819');
  expect(document.title).not.toContain('9819');
});

test('a patient leads to the timeline, newest first, and the title names nobody', async () => {
  const memory = open('/');
  await userEvent.click(await screen.findByTestId('patient-row'));
  expect(await screen.findByRole('heading', { name: 'Åsa Andersson' })).toBeVisible();
  expect(screen.getByText('19800102-9819')).toBeVisible();
  expect(screen.getAllByTestId('study-row').map((row) => row.textContent)).toEqual([
    expect.stringContaining('DT Thorax'),
    expect.stringContaining('MR Hjärna'),
  ]);
  expect(memory.location.pathname).toBe('/patient/17');
  expect(document.title).toBe('Patientens undersökningar – BFR');
});

test('the timeline shows one modality, and the address remembers which', async () => {
  const memory = open('/patient/17');
  await userEvent.click(await screen.findByRole('radio', { name: 'MR (1)' }));
  expect(await screen.findByText('1 undersökning visas')).toBeVisible();
  expect(screen.getAllByTestId('study-row')).toHaveLength(1);
  expect(memory.location.href).toBe('/patient/17?modality=MR');
});

test('arrow keys walk through the timeline', async () => {
  open('/patient/17');
  const rows = await screen.findAllByTestId('study-row');
  rows[0]?.focus();
  await userEvent.keyboard('{ArrowDown}');
  expect(rows[1]).toHaveFocus();
  await userEvent.keyboard('{ArrowDown}{Home}');
  expect(rows[0]).toHaveFocus();
});

test('a patient who is not there is said to be missing, with what the server said', async () => {
  open('/patient/99');
  const alert = await screen.findByRole('alert');
  expect(alert).toHaveTextContent('Det du söker finns inte, eller är inte ditt att se.');
  expect(alert).toHaveTextContent('There is no such patient');
});

test('the received examinations sort in Swedish order, and the address remembers the sorting', async () => {
  const memory = open('/samverkan');
  const table = await screen.findByRole('table');
  const names = () =>
    within(table)
      .getAllByTestId('study-row')
      .map((row) => row.textContent);
  expect(names()).toEqual(['Åsa Andersson', 'Karl Öberg']);
  await userEvent.click(within(table).getByRole('button', { name: 'Namn, sortera' }));
  await userEvent.click(within(table).getByRole('button', { name: 'Namn, sortera' }));
  expect(names()).toEqual(['Karl Öberg', 'Åsa Andersson']);
  expect(memory.location.href).toBe('/samverkan?sort=-patient');
  expect(within(table).getByRole('columnheader', { name: /Namn/ })).toHaveAttribute(
    'aria-sort',
    'descending',
  );
});

test('an unknown address has a page of its own', async () => {
  open('/finns/inte');
  expect(await screen.findByRole('heading', { name: 'Sidan finns inte' })).toBeVisible();
});
