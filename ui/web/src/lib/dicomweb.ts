/** DICOMweb as the application uses it (PS3.18): addresses, series metadata, DICOM JSON values. */
import { request } from './api';

/** One attribute of the DICOM JSON model (PS3.18 §F.2.2). */
export interface DicomAttribute {
  vr: string;
  Value?: unknown[];
  BulkDataURI?: string;
  InlineBinary?: string;
}

/** One data set of the DICOM JSON model, by eight-digit tag. */
export type DicomDataset = Record<string, DicomAttribute>;

export function archiveRoot(aeTitle: string): string {
  return `/archives/${encodeURIComponent(aeTitle)}/dicomweb`;
}

export function seriesRoot(aeTitle: string, study: string, series: string): string {
  return `${archiveRoot(aeTitle)}/studies/${study}/series/${series}`;
}

/** The address of a small rendered picture of one instance (PS3.18 §10.4.1.1.5). */
export function thumbnailAddress(
  aeTitle: string,
  study: string,
  series: string,
  instance: string,
): string {
  return `${seriesRoot(aeTitle, study, series)}/instances/${instance}/rendered?viewport=160,160&quality=80`;
}

/** Returns one data set for each instance of the series; raises Problem. */
export async function readSeriesMetadata(
  aeTitle: string,
  study: string,
  series: string,
  signal?: AbortSignal,
): Promise<DicomDataset[]> {
  const response = await request(`${seriesRoot(aeTitle, study, series)}/metadata`, {
    signal,
    headers: { accept: 'application/dicom+json' },
  });
  return (await response.json()) as DicomDataset[];
}

export function values(dataset: DicomDataset, tag: string): unknown[] {
  return dataset[tag]?.Value ?? [];
}

/** The first value as text; the empty text when there is none. */
export function textOf(dataset: DicomDataset, tag: string): string {
  const value = values(dataset, tag)[0];
  if (value === undefined || value === null) return '';
  if (typeof value === 'object' && 'Alphabetic' in value) return String(value.Alphabetic ?? '');
  return String(value);
}

/** The numbers of the attribute; empty when it is absent or holds anything else. */
export function numbersOf(dataset: DicomDataset, tag: string): number[] {
  const numbers = values(dataset, tag).map((value) =>
    typeof value === 'number' ? value : typeof value === 'string' ? Number.parseFloat(value) : NaN,
  );
  return numbers.every(Number.isFinite) ? numbers : [];
}

export function numberOf(dataset: DicomDataset, tag: string): number | null {
  return numbersOf(dataset, tag)[0] ?? null;
}

/** The items of a sequence; empty when it is absent. */
export function itemsOf(dataset: DicomDataset, tag: string): DicomDataset[] {
  return values(dataset, tag).filter(
    (item): item is DicomDataset => typeof item === 'object' && item !== null,
  );
}

/** Returns the body of the first part of a multipart answer (RFC 2046 §5.1). */
export function firstPart(body: Uint8Array, contentType: string): Uint8Array<ArrayBuffer> {
  const boundary = /boundary="?([^";]+)"?/i.exec(contentType)?.[1];
  if (!boundary) return body.slice();
  const text = new TextDecoder('latin1').decode(body);
  const opening = text.indexOf(`--${boundary}`);
  const headersEnd = text.indexOf('\r\n\r\n', opening);
  const closing = text.indexOf(`\r\n--${boundary}`, headersEnd);
  if (opening < 0 || headersEnd < 0) return body.slice();
  return body.slice(headersEnd + 4, closing < 0 ? undefined : closing);
}

/** Returns the bytes behind a BulkDataURI (PS3.18 §10.4.1.1.3); raises Problem. */
export async function readBulkData(
  address: string,
  mediaType: string,
): Promise<Uint8Array<ArrayBuffer>> {
  const response = await request(address, {
    headers: {
      accept: `multipart/related; type="${mediaType}", multipart/related; type="application/octet-stream"`,
    },
  });
  const body = new Uint8Array(await response.arrayBuffer());
  return firstPart(body, response.headers.get('content-type') ?? '');
}
