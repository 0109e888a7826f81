/** Measuring: which tools, and what is written beside a mark. */
import { cache, getRenderingEngines } from '@cornerstonejs/core';
import * as tools from '@cornerstonejs/tools';
import { hasSpacing, isProjection } from './frames';
import { frameOf } from './pictures';

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

function pictureOf(targetId: string): string {
  return targetId.replace(/^imageId:/, '');
}

/** The unit of a length or area; a length on a projection image is one at the detector: said, never silently in mm. */
function unitAndPlace(targetId: string, unit: unknown): string {
  const frame = frameOf(pictureOf(targetId));
  if (frame && !hasSpacing(frame)) return String(unit ?? '').replace('mm', 'px');
  return `${unit ?? ''}${frame && isProjection(frame.dataset) ? ` (${words.atDetector})` : ''}`;
}

function statistics(data: MeasuredData, targetId: string): Statistics | undefined {
  return data.cachedStats?.[targetId];
}

function lengthLines(data: MeasuredData, targetId: string): string[] | undefined {
  const found = statistics(data, targetId);
  if (!Number.isFinite(found?.length)) return undefined;
  return [`${amount(found?.length, 1)} ${unitAndPlace(targetId, found?.unit)}`];
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
    lines.push(`${words.area} ${amount(found.area, 0)} ${unitAndPlace(targetId, found.areaUnit)}`);
  if (Number.isFinite(found.mean)) lines.push(`${words.mean} ${amount(found.mean, 1)} ${unit}`);
  if (Number.isFinite(found.stdDev))
    lines.push(`${words.deviation} ${amount(found.stdDev, 1)} ${unit}`);
  if (Number.isFinite(found.min) && Number.isFinite(found.max))
    lines.push(`${words.range} ${amount(found.min, 0)}–${amount(found.max, 0)} ${unit}`);
  return lines;
}

/** The value at a point, read from the picture itself: the tool finds it in the first of a stack only. */
function pointLines(data: MeasuredData, targetId: string): string[] | undefined {
  const found = statistics(data, targetId);
  const index = found?.index as ArrayLike<number> | undefined;
  const values = cache.getImage(pictureOf(targetId))?.voxelManager;
  if (!index || !values) return undefined;
  const [column = 0, row = 0] = Array.from(index);
  const value = values.getAtIJK(column, row, 0) as unknown;
  const numbers = typeof value === 'number' ? [value] : Array.from(value as ArrayLike<number>);
  if (!numbers.every(Number.isFinite)) return undefined;
  const unit = typeof found?.modalityUnit === 'string' ? found.modalityUnit : '';
  return [
    `(${column}, ${row})`,
    `${numbers.map((number) => amount(number, 2)).join(' ')} ${unit === 'raw' ? '' : unit}`.trim(),
  ];
}

export const MEASURING_TOOLS: [typeof tools.LengthTool, Record<string, unknown>][] = [
  [tools.LengthTool, { getTextLines: lengthLines }],
  [tools.AngleTool as never, { getTextLines: angleLines }],
  [tools.EllipticalROITool as never, { getTextLines: ellipseLines }],
  [tools.ProbeTool as never, { getTextLines: pointLines }],
];

/** Removes all marks; returns how many there were. */
export function removeMarks(): number {
  const marks = tools.annotation.state.getAllAnnotations();
  tools.annotation.state.removeAllAnnotations();
  // Only a change of a mark is drawn by itself, not that it is gone.
  const viewports = getRenderingEngines()?.flatMap((engine) => engine.getViewports()) ?? [];
  tools.utilities.triggerAnnotationRenderForViewportIds(viewports.map(({ id }) => id));
  return marks.length;
}
