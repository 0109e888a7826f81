import { MantineProvider } from '@mantine/core';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { useState } from 'react';
import { TranslationProvider } from '../i18n';
import { Problem } from '../lib/api';
import { colourSchemeManager } from './colour-scheme';
import type { router } from './router';
import { theme } from './theme';

const MAXIMUM_RETRIES = 2;

/** An answer of the server stays the same when asked again at once; only a lost connection may come back. */
function mayRetry(failures: number, error: Error): boolean {
  return failures < MAXIMUM_RETRIES && error instanceof Problem && error.status === null;
}

interface ApplicationProps {
  router: typeof router;
  /** In tests nothing moves and nothing is drawn outside its place. */
  env?: 'default' | 'test';
}

/** The whole application: theme, language, answers of the server, pages. */
export function Application({ router, env = 'default' }: ApplicationProps) {
  const [queries] = useState(
    () => new QueryClient({ defaultOptions: { queries: { staleTime: 10_000, retry: mayRetry } } }),
  );
  const [manager] = useState(colourSchemeManager);
  return (
    <MantineProvider
      theme={theme}
      defaultColorScheme="auto"
      colorSchemeManager={manager}
      withCssVariables={false}
      withGlobalClasses={false}
      env={env}
    >
      <TranslationProvider>
        <QueryClientProvider client={queries}>
          <RouterProvider router={router} />
        </QueryClientProvider>
      </TranslationProvider>
    </MantineProvider>
  );
}
