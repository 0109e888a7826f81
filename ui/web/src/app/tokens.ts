/**
 * Every colour of the application, one place. `theme.ts` turns them into CSS variables (`surfaceSunken`
 * becomes `--bfr-surface-sunken`), and `tokens.test.ts` computes the contrast of each pair in use.
 */
const light = {
  page: '#f2f5f7',
  surface: '#ffffff',
  surfaceSunken: '#e8eef1',
  surfaceHover: '#eef5f6',
  line: '#d5dee4',
  controlBorder: '#74818d',
  text: '#14232c',
  textMuted: '#4c5f6b',
  accent: '#0a6172',
  accentSoft: '#e0f1f3',
  onAccentSoft: '#074b58',
  focus: '#0a6172',
  header: '#0d2733',
  headerText: '#f0f8f9',
  headerMuted: '#adc7cf',
  headerAccent: '#6fd0d6',
  headerBorder: '#6c8a96',
  success: '#17663a',
  successSoft: '#e2f3e8',
  warning: '#7c4400',
  warningSoft: '#fcefd9',
  danger: '#a8201a',
  dangerSoft: '#fdebe9',
  modalityCt: '#0b5566',
  modalityCtSoft: '#d9eff2',
  modalityMr: '#4a3a92',
  modalityMrSoft: '#e9e6fa',
  modalityXray: '#2f5482',
  modalityXraySoft: '#e1ebf7',
  modalityUs: '#7a4310',
  modalityUsSoft: '#f8eadb',
  modalityMg: '#8b2a5c',
  modalityMgSoft: '#fae4ef',
  modalityNm: '#5a5a00',
  modalityNmSoft: '#f3f2d6',
  modalityOther: '#44535e',
  modalityOtherSoft: '#e6ebef',
} as const;

export type TokenName = keyof typeof light;

const dark: Record<TokenName, string> = {
  page: '#0d1317',
  surface: '#151d23',
  surfaceSunken: '#1d272e',
  surfaceHover: '#1b272e',
  line: '#2a373f',
  controlBorder: '#8796a3',
  text: '#e7eef2',
  textMuted: '#a3b3bd',
  accent: '#62c7d2',
  accentSoft: '#123840',
  onAccentSoft: '#b6ecf1',
  focus: '#7cdde6',
  header: '#0b1c25',
  headerText: '#f0f8f9',
  headerMuted: '#adc7cf',
  headerAccent: '#6fd0d6',
  headerBorder: '#6c8a96',
  success: '#83d9a0',
  successSoft: '#14301f',
  warning: '#f2bd6d',
  warningSoft: '#352711',
  danger: '#ffa39b',
  dangerSoft: '#3d1b19',
  modalityCt: '#8fdce6',
  modalityCtSoft: '#10353d',
  modalityMr: '#c3b8ff',
  modalityMrSoft: '#2a2550',
  modalityXray: '#abccf5',
  modalityXraySoft: '#1a2f49',
  modalityUs: '#f3c08f',
  modalityUsSoft: '#3a2614',
  modalityMg: '#f7aed0',
  modalityMgSoft: '#431b30',
  modalityNm: '#dedc86',
  modalityNmSoft: '#32320f',
  modalityOther: '#bccad4',
  modalityOtherSoft: '#26313a',
};

/** The viewer is dark in both themes: a white frame around a dark image hides its dark parts. */
const viewer = {
  viewerFrame: '#0b0f12',
  viewerPanel: '#141a1f',
  viewerRaised: '#1f272e',
  viewerPressed: '#124048',
  viewerLine: '#2b363e',
  viewerControlBorder: '#74838f',
  viewerText: '#e8eff3',
  viewerMuted: '#a5b5bf',
  viewerAccent: '#6fd3dc',
  viewerWarning: '#f2bd6d',
  viewerDanger: '#ffa39b',
  viewerSuccess: '#83d9a0',
  viewerImage: '#000000',
  viewerOverlay: '#dfeaf0',
} as const;

export const tokens = { light, dark, viewer };

/** The CSS variable of a token, for use in styles: `var(--bfr-text-muted)`. */
export function variableName(token: string): string {
  return `--bfr-${token.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}
