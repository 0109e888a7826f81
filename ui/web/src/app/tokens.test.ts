import { describe, expect, test } from 'vitest';
import { cssVariables } from './theme';
import { type TokenName, tokens } from './tokens';

function luminance(colour: string): number {
  const [red, green, blue] = [1, 3, 5].map((at) => {
    const channel = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

/** The contrast ratio of two colours (WCAG 2.1, relative luminance). */
function contrast(one: string, other: string): number {
  const [lighter, darker] = [luminance(one), luminance(other)].sort((a, b) => b - a) as [
    number,
    number,
  ];
  return (lighter + 0.05) / (darker + 0.05);
}

const TEXT = 4.5; // WCAG 1.4.3
const CONTROL = 3; // WCAG 1.4.11

const grounds: TokenName[] = ['page', 'surface', 'surfaceSunken', 'surfaceHover'];
const pairs: [TokenName, TokenName, number][] = [
  ...grounds.flatMap((ground): [TokenName, TokenName, number][] => [
    ['text', ground, TEXT],
    ['textMuted', ground, TEXT],
    ['accent', ground, TEXT],
    ['danger', ground, TEXT],
    ['warning', ground, TEXT],
    ['success', ground, TEXT],
    ['controlBorder', ground, CONTROL],
    ['focus', ground, CONTROL],
  ]),
  ['onAccentSoft', 'accentSoft', TEXT],
  ['success', 'successSoft', TEXT],
  ['warning', 'warningSoft', TEXT],
  ['danger', 'dangerSoft', TEXT],
  ['text', 'warningSoft', TEXT],
  ['text', 'dangerSoft', TEXT],
  ['headerText', 'header', TEXT],
  ['headerMuted', 'header', TEXT],
  ['headerAccent', 'header', TEXT],
  ['headerBorder', 'header', CONTROL],
  ['modalityCt', 'modalityCtSoft', TEXT],
  ['modalityMr', 'modalityMrSoft', TEXT],
  ['modalityXray', 'modalityXraySoft', TEXT],
  ['modalityUs', 'modalityUsSoft', TEXT],
  ['modalityMg', 'modalityMgSoft', TEXT],
  ['modalityNm', 'modalityNmSoft', TEXT],
  ['modalityOther', 'modalityOtherSoft', TEXT],
];

describe.each(['light', 'dark'] as const)('the %s theme', (scheme) => {
  test.each(pairs)('%s on %s has a contrast of at least %d:1', (over, under, minimum) => {
    expect(contrast(tokens[scheme][over], tokens[scheme][under])).toBeGreaterThanOrEqual(minimum);
  });

  test('gives Mantine controls a border that can be seen', () => {
    const border = cssVariables[scheme]['--mantine-color-default-border'] as string;
    expect(contrast(border, tokens[scheme].surface)).toBeGreaterThanOrEqual(CONTROL);
    expect(contrast(border, tokens[scheme].page)).toBeGreaterThanOrEqual(CONTROL);
  });

  test('gives a filled button readable white text', () => {
    const shade = scheme === 'light' ? '#0a6172' : '#0e6c7d';
    expect(contrast('#ffffff', shade)).toBeGreaterThanOrEqual(TEXT);
  });
});

describe('the viewer', () => {
  const viewer = tokens.viewer;
  const panels = [
    viewer.viewerFrame,
    viewer.viewerPanel,
    viewer.viewerRaised,
    viewer.viewerPressed,
  ];

  test('has readable text on every panel', () => {
    for (const panel of panels) {
      for (const text of [
        viewer.viewerText,
        viewer.viewerMuted,
        viewer.viewerAccent,
        viewer.viewerWarning,
        viewer.viewerDanger,
        viewer.viewerSuccess,
      ]) {
        expect(contrast(text, panel)).toBeGreaterThanOrEqual(TEXT);
      }
    }
  });

  test('has visible control borders and focus rings', () => {
    for (const panel of [viewer.viewerFrame, viewer.viewerPanel, viewer.viewerRaised]) {
      expect(contrast(viewer.viewerControlBorder, panel)).toBeGreaterThanOrEqual(CONTROL);
      expect(contrast(viewer.viewerAccent, panel)).toBeGreaterThanOrEqual(CONTROL);
    }
  });

  test('keeps the frame around an image below 12 % luminance', () => {
    for (const panel of panels) expect(luminance(panel)).toBeLessThan(0.12);
  });
});
