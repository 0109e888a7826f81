/** Measuring: which tools, and what is written beside a mark. */
import dicomImageLoader from '@cornerstonejs/dicom-image-loader';
import * as tools from '@cornerstonejs/tools';
import type { DicomDataset } from '../../lib/dicomweb';
import { isProjection } from './frames';

/** The words beside marks, in the language of the page; set by the viewer. */
export interface MeasuringWords {
  area: string;
  mean: string;
  deviation: string;
  range: string;
  atDetector: string;
  locale: string;
}

let words: MeasuringWords = {
  area: 'Area',
  mean: 'Mean',
  deviation: 'SD',
  range: 'Min–max',
  atDetector: 'at detector',
  locale: 'en-GB',
};

export function setMeasuringWords(next: MeasuringWords): void {
  words = next;
}

type Statistics = Record<string, unknown>;

interface MeasuredData {
  cachedStats?: Record<string, Statistics | undefined>;
}

function amount(value: unknown, digits: number): string {
  return new Intl.NumberFormat(words.locale, { maximumFractionDigits: digits }).format(
    Number(value),
  );
}

/** A length on a projection image is one at the detector: said, never silently in mm. */
function place(targetId: string): string {
  const dataset = dicomImageLoader.wadors.metaDataManager.get(targetId.replace(/^imageId:/, '')) as
    | DicomDataset
    | undefined;
  return dataset && isProjection(dataset) ? ` (${words.atDetector})` : '';
}

function statistics(data: MeasuredData, targetId: string): Statistics | undefined {
  return data.cachedStats?.[targetId];
}

function lengthLines(data: MeasuredData, targetId: string): string[] | undefined {
  const found = statistics(data, targetId);
  if (!Number.isFinite(found?.length)) return undefined;
  return [`${amount(found?.length, 1)} ${found?.unit ?? ''}${place(targetId)}`];
}

function angleLines(data: MeasuredData, targetId: string): string[] | undefined {
  const found = statistics(data, targetId);
  return Number.isFinite(found?.angle) ? [`${amount(found?.angle, 1)}°`] : undefined;
}

function ellipseLines(data: MeasuredData, targetId: string): string[] | undefined {
  const found = statistics(data, targetId);
  if (!found) return undefined;
  const unit = String(found.modalityUnit ?? '');
  const lines: string[] = [];
  if (Number.isFinite(found.area))
    lines.push(`${words.area} ${amount(found.area, 0)} ${found.areaUnit ?? ''}${place(targetId)}`);
  if (Number.isFinite(found.mean)) lines.push(`${words.mean} ${amount(found.mean, 1)} ${unit}`);
  if (Number.isFinite(found.stdDev))
    lines.push(`${words.deviation} ${amount(found.stdDev, 1)} ${unit}`);
  if (Number.isFinite(found.min) && Number.isFinite(found.max))
    lines.push(`${words.range} ${amount(found.min, 0)}–${amount(found.max, 0)} ${unit}`);
  return lines;
}

export const MEASURING_TOOLS: [typeof tools.LengthTool, Record<string, unknown>][] = [
  [tools.LengthTool, { getTextLines: lengthLines }],
  [tools.AngleTool as never, { getTextLines: angleLines }],
  [tools.EllipticalROITool as never, { getTextLines: ellipseLines }],
  [tools.ProbeTool as never, {}],
];

/** Removes all marks; returns how many there were. */
export function removeMarks(): number {
  const marks = tools.annotation.state.getAllAnnotations();
  tools.annotation.state.removeAllAnnotations();
  return marks.length;
}
