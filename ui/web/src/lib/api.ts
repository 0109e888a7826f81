/** The JSON interface of the server: its shapes, and one function for each question. */

export interface Session {
  subject: string;
  kind: 'node' | 'local' | 'operator' | 'job';
  version: string;
}

export interface Patient {
  patient_key: string;
  patient_identifier: string;
  issuer: string;
  name: string;
  birth_date: string | null;
  sex: 'F' | 'M' | 'O' | null;
  number_of_studies: number;
  latest_study_date: string | null;
}

export interface PatientMatches {
  patients: Patient[];
  more: boolean;
}

export type ReceptionState = 'receiving' | 'complete';

export interface Study {
  archive: string;
  study_instance_uid: string;
  study_date: string | null;
  study_time: string | null;
  description: string;
  accession_number: string;
  modalities: string[];
  body_parts: string[];
  institution: string;
  referring_physician: string;
  number_of_series: number;
  number_of_instances: number;
  size_bytes: number;
  state: ReceptionState;
  received_at: string;
  thumbnail: { series_instance_uid: string; sop_instance_uid: string } | null;
}

export interface PatientHistory {
  patient: Patient;
  studies: Study[];
}

export interface Series {
  series_instance_uid: string;
  modality: string;
  series_number: number | null;
  description: string;
  body_part: string;
  number_of_instances: number;
  size_bytes: number;
  state: ReceptionState;
  representative_sop_instance_uid: string | null;
}

export interface StudyDetail {
  patient: Patient;
  study: Study;
  series: Series[];
}

export interface ReceivedStudy extends Study {
  patient: Pick<Patient, 'patient_key' | 'name' | 'patient_identifier'>;
}

export interface ArchiveEvent {
  event_id: number;
  occurred_at: string;
  kind: string;
  archive: string;
  study_instance_uid: string | null;
  series_instance_uid: string | null;
}

export interface Status {
  version: string;
  /** `detail` says what is wrong when a part is not ready. */
  roles: { role: string; ready: boolean; beat_at: string; detail?: string }[];
  archives: {
    ae_title: string;
    name: string;
    connection: string;
    patients: number;
    studies: number;
    series: number;
    instances: number;
    size_bytes: number;
  }[];
  connections: {
    name: string;
    environment: string;
    archive: string;
    nodes: { ae_title: string; host: string; port: number }[];
  }[];
  storage: { total_bytes: number; free_bytes: number };
  jobs: { todo: number; doing: number; failed: number };
  events: ArchiveEvent[];
  dimse_port: number;
}

/** What the server answered instead of data (RFC 9457), or that it did not answer at all. */
export class Problem extends Error {
  override readonly name = 'Problem';

  constructor(
    /** The HTTP status; null when the server could not be reached. */
    readonly status: number | null,
    title: string,
    readonly detail: string | null,
  ) {
    super(title);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/** Returns the problem an unsuccessful answer describes; raises nothing. */
export async function problemOf(response: Response): Promise<Problem> {
  const body: unknown = response.headers.get('content-type')?.includes('json')
    ? await response.json().catch(() => null)
    : null;
  const title = isRecord(body) && typeof body.title === 'string' ? body.title : '';
  const detail = isRecord(body) && typeof body.detail === 'string' ? body.detail : null;
  return new Problem(response.status, title || `HTTP ${response.status}`, detail);
}

/** Returns the answer of the server; raises Problem when it is not a success or never comes. */
export async function request(path: string, init: RequestInit): Promise<Response> {
  const response = await fetch(path, { credentials: 'same-origin', ...init }).catch(
    (error: unknown) => {
      if (init.signal?.aborted) throw error;
      throw new Problem(null, 'unreachable', error instanceof Error ? error.message : null);
    },
  );
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function readJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await request(path, { signal, headers: { accept: 'application/json' } });
  return (await response.json()) as T;
}

export function readSession(signal?: AbortSignal): Promise<Session> {
  return readJson('/api/session', signal);
}

/** The text goes in the body: a person number must not stand in an address or a log. */
export async function searchPatients(query: string, signal?: AbortSignal): Promise<PatientMatches> {
  const response = await request('/api/patients/search', {
    method: 'POST',
    signal,
    headers: { accept: 'application/json', 'content-type': 'application/json' },
    body: JSON.stringify({ query, limit: 50 }),
  });
  return (await response.json()) as PatientMatches;
}

export function readPatientHistory(patientKey: string, signal?: AbortSignal) {
  return readJson<PatientHistory>(`/api/patients/${encodeURIComponent(patientKey)}`, signal);
}

export function readStudy(aeTitle: string, studyInstanceUid: string, signal?: AbortSignal) {
  return readJson<StudyDetail>(
    `/api/archives/${encodeURIComponent(aeTitle)}/studies/${encodeURIComponent(studyInstanceUid)}`,
    signal,
  );
}

export interface ReceivedStudiesFilter {
  limit: number;
  modality?: string;
  archive?: string;
}

export function readReceivedStudies(filter: ReceivedStudiesFilter, signal?: AbortSignal) {
  const parameters = new URLSearchParams({ limit: String(filter.limit) });
  if (filter.modality) parameters.set('modality', filter.modality);
  if (filter.archive) parameters.set('archive', filter.archive);
  return readJson<{ studies: ReceivedStudy[] }>(`/api/studies?${parameters}`, signal);
}

export function readStatus(signal?: AbortSignal): Promise<Status> {
  return readJson('/api/status', signal);
}
