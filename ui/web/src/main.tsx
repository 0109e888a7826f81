import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { StrictMode } from 'react';
import { createRoot } from 'react-dom/client';
import './app/styles.css';
import { colourSchemeManager } from './app/colour-scheme';
import { router } from './app/router';
import { adoptCssVariables, theme } from './app/theme';
import { TranslationProvider } from './i18n';
import { Problem } from './lib/api';

adoptCssVariables();

const queries = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 10_000,
      // An answer of the server stays the same when asked again at once; only a lost connection may come back.
      retry: (failures, error) =>
        failures < 2 && (!(error instanceof Problem) || error.status === null),
    },
  },
});
const manager = colourSchemeManager();

createRoot(document.getElementById('root') as HTMLElement).render(
  <StrictMode>
    <MantineProvider
      theme={theme}
      defaultColorScheme="auto"
      colorSchemeManager={manager}
      withCssVariables={false}
      withGlobalClasses={false}
    >
      <TranslationProvider>
        <QueryClientProvider client={queries}>
          <RouterProvider router={router} />
        </QueryClientProvider>
      </TranslationProvider>
    </MantineProvider>
  </StrictMode>,
);
