import {
  type CSSVariablesResolver,
  convertCssVariables,
  createTheme,
  DEFAULT_THEME,
  defaultCssVariablesResolver,
  type MantineColorsTuple,
  mergeMantineTheme,
} from '@mantine/core';
import { tokens, variableName } from './tokens';

const petrol: MantineColorsTuple = [
  '#e4f5f7',
  '#cdebee',
  '#9fd8de',
  '#6cc4ce',
  '#45b2be',
  '#2aa2b0',
  '#158898',
  '#0a6172',
  '#0e6c7d',
  '#074551',
];

export const theme = createTheme({
  colors: { petrol },
  primaryColor: 'petrol',
  primaryShade: { light: 7, dark: 8 },
  autoContrast: true,
  respectReducedMotion: true,
  defaultRadius: 'md',
  cursorType: 'pointer',
  fontFamily:
    '"Segoe UI Variable Text", "Segoe UI", system-ui, -apple-system, Roboto, Inter, "Helvetica Neue", Arial, sans-serif',
  fontFamilyMonospace: 'ui-monospace, "Cascadia Mono", "SF Mono", Menlo, Consolas, monospace',
  fontSizes: { xs: '0.75rem', sm: '0.8125rem', md: '0.9375rem', lg: '1.0625rem', xl: '1.25rem' },
  headings: { fontWeight: '650' },
});

function asVariables(palette: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(palette).map(([token, colour]) => [variableName(token), colour]),
  );
}

/** Mantine's variables with the ones that fail WCAG 1.4.11 or do not fit the palette replaced. */
function mantineOverrides(palette: Record<keyof typeof tokens.light, string>) {
  return {
    '--mantine-color-body': palette.page,
    '--mantine-color-text': palette.text,
    '--mantine-color-dimmed': palette.textMuted,
    '--mantine-color-placeholder': palette.textMuted,
    '--mantine-color-anchor': palette.accent,
    '--mantine-color-error': palette.danger,
    '--mantine-color-default': palette.surface,
    '--mantine-color-default-hover': palette.surfaceHover,
    '--mantine-color-default-color': palette.text,
    '--mantine-color-default-border': palette.controlBorder,
    '--mantine-color-disabled': palette.surfaceSunken,
    '--mantine-color-disabled-color': palette.textMuted,
  };
}

const merged = mergeMantineTheme(DEFAULT_THEME, theme);

export const cssVariables: ReturnType<CSSVariablesResolver> = (() => {
  const base = defaultCssVariablesResolver(merged);
  return {
    variables: { ...base.variables, ...asVariables(tokens.viewer) },
    light: {
      ...base.light,
      '--mantine-color-scheme': 'light',
      '--mantine-color-gray-4': tokens.light.controlBorder,
      ...mantineOverrides(tokens.light),
      ...asVariables(tokens.light),
    },
    dark: {
      ...base.dark,
      '--mantine-color-scheme': 'dark',
      '--mantine-color-dark-4': tokens.dark.controlBorder,
      ...mantineOverrides(tokens.dark),
      ...asVariables(tokens.dark),
    },
  };
})();

/** Parts that are dark in both themes, such as the viewer, take all colours of the dark one. */
const DARK_SURFACE = `[data-surface="dark"]{${Object.entries({
  ...mantineOverrides(tokens.dark),
  ...asVariables(tokens.dark),
})
  .map(([name, colour]) => `${name}:${colour};`)
  .join('')}}`;

/** Puts the variables on the page as a constructed style sheet, which `style-src 'self'` allows. */
export function adoptCssVariables(): void {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(convertCssVariables(cssVariables) + DARK_SURFACE);
  document.adoptedStyleSheets = [...document.adoptedStyleSheets, sheet];
}
