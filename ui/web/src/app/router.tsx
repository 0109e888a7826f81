import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  type RouterHistory,
} from '@tanstack/react-router';
import { Layout } from './layout';
import { NotFoundPage, RouteError } from './not-found';

const loadViewer = () => import('../features/viewer/viewer-page');

/** Fetches, parses and starts the viewer while the timeline is read, so that a click finds it ready. */
function warmViewer(): void {
  // A failure shows itself where the viewer is opened.
  const warm = () =>
    void loadViewer().then(
      ({ startCornerstone }) => startCornerstone().catch(() => undefined),
      () => undefined,
    );
  if ('requestIdleCallback' in window) window.requestIdleCallback(warm, { timeout: 2000 });
  else setTimeout(warm, 500);
}

function optionalText(value: unknown): string | undefined {
  return typeof value === 'string' && value ? value : undefined;
}

const root = createRootRoute({
  component: Layout,
  notFoundComponent: NotFoundPage,
  errorComponent: RouteError,
});

const patientSearch = createRoute({
  getParentRoute: () => root,
  path: '/',
  component: lazyRouteComponent(
    () => import('../features/patients/patient-search-page'),
    'PatientSearchPage',
  ),
});

const patient = createRoute({
  getParentRoute: () => root,
  path: '/patient/$patientKey',
  validateSearch: (search: Record<string, unknown>): { modality?: string } => ({
    modality: optionalText(search.modality),
  }),
  onEnter: warmViewer,
  component: lazyRouteComponent(
    () => import('../features/studies/patient-timeline-page'),
    'PatientTimelinePage',
  ),
});

const viewer = createRoute({
  getParentRoute: () => root,
  path: '/viewer/$aeTitle/$studyInstanceUid',
  validateSearch: (search: Record<string, unknown>): { series?: string } => ({
    series: optionalText(search.series),
  }),
  component: lazyRouteComponent(loadViewer, 'ViewerPage'),
});

const collaborations = createRoute({
  getParentRoute: () => root,
  path: '/samverkan',
  validateSearch: (
    search: Record<string, unknown>,
  ): { modality?: string; archive?: string; sort?: string } => ({
    modality: optionalText(search.modality),
    archive: optionalText(search.archive),
    sort: optionalText(search.sort),
  }),
  onEnter: warmViewer,
  component: lazyRouteComponent(
    () => import('../features/collaborations/received-studies-page'),
    'ReceivedStudiesPage',
  ),
});

const administration = createRoute({
  getParentRoute: () => root,
  path: '/admin',
  component: lazyRouteComponent(
    () => import('../features/administration/status-page'),
    'StatusPage',
  ),
});

const accessibility = createRoute({
  getParentRoute: () => root,
  path: '/tillganglighet',
  component: lazyRouteComponent(() => import('./accessibility-page'), 'AccessibilityPage'),
});

const routeTree = root.addChildren([
  patientSearch,
  patient,
  viewer,
  collaborations,
  administration,
  accessibility,
]);

/** The routes of the application on the history of this window, or on a given one. */
export function createApplicationRouter(history?: RouterHistory) {
  return createRouter({ routeTree, history, defaultPreload: 'intent', scrollRestoration: true });
}

export const router = createApplicationRouter();

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
