import {
  type MantineColorScheme,
  Menu,
  UnstyledButton,
  useMantineColorScheme,
} from '@mantine/core';
import { useQuery } from '@tanstack/react-query';
import { Link, Outlet, useRouterState } from '@tanstack/react-router';
import { useEffect, useRef } from 'react';
import { MoonIcon, PersonIcon, ScreenIcon, SunIcon } from '../components/icons';
import { Logo } from '../components/logo';
import { type Language, useTranslation } from '../i18n';
import { readSession } from '../lib/api';
import classes from './layout.module.css';

type Portal = 'viewer' | 'collaborations' | 'administration' | null;

function portalOf(pathname: string): Portal {
  if (pathname.startsWith('/samverkan')) return 'collaborations';
  if (pathname.startsWith('/admin')) return 'administration';
  if (pathname === '/' || pathname.startsWith('/patient') || pathname.startsWith('/viewer'))
    return 'viewer';
  return null;
}

function PortalLinks({ pathname }: { pathname: string }) {
  const { t } = useTranslation();
  const portal = portalOf(pathname);
  const current = (name: Portal) => (portal === name ? ('true' as const) : undefined);
  return (
    <nav className={classes.portals} aria-label={t('layout.portals')}>
      <Link to="/" className={classes.portal} aria-current={current('viewer')}>
        {t('portal.viewer')}
      </Link>
      <Link to="/samverkan" className={classes.portal} aria-current={current('collaborations')}>
        {t('portal.collaborations')}
      </Link>
      <Link to="/admin" className={classes.portal} aria-current={current('administration')}>
        {t('portal.administration')}
      </Link>
    </nav>
  );
}

const LANGUAGES: { code: Language; label: string; name: string }[] = [
  { code: 'sv', label: 'SV', name: 'Svenska' },
  { code: 'en', label: 'EN', name: 'English' },
];

function LanguageSwitch() {
  const { t, language, setLanguage } = useTranslation();
  return (
    <fieldset className={classes.languages}>
      <legend className={classes.hidden}>{t('layout.language')}</legend>
      {LANGUAGES.map(({ code, label, name }) => (
        <button
          key={code}
          type="button"
          lang={code}
          aria-pressed={language === code}
          aria-label={`${label}, ${name}`}
          onClick={() => setLanguage(code)}
        >
          {label}
        </button>
      ))}
    </fieldset>
  );
}

const SCHEMES = [
  { value: 'light', icon: SunIcon, key: 'layout.scheme.light' },
  { value: 'dark', icon: MoonIcon, key: 'layout.scheme.dark' },
  { value: 'auto', icon: ScreenIcon, key: 'layout.scheme.auto' },
] as const;

function SchemeMenu() {
  const { t } = useTranslation();
  const { colorScheme, setColorScheme } = useMantineColorScheme({ keepTransitions: true });
  const chosen = SCHEMES.find(({ value }) => value === colorScheme) ?? SCHEMES[2];
  return (
    <Menu
      withinPortal={false}
      withInitialFocusPlaceholder={false}
      position="bottom-end"
      width={200}
      transitionProps={{ duration: 0 }}
    >
      <Menu.Target>
        <UnstyledButton
          className={classes.iconButton}
          aria-label={`${t('layout.scheme')}: ${t(chosen.key)}`}
        >
          <chosen.icon size={19} />
        </UnstyledButton>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.RadioGroup
          value={colorScheme}
          onChange={(value) => setColorScheme(value as MantineColorScheme)}
        >
          {SCHEMES.map(({ value, icon: Icon, key }) => (
            <Menu.RadioItem
              key={value}
              value={value}
              closeMenuOnClick
              rightSection={<Icon size={17} />}
            >
              {t(key)}
            </Menu.RadioItem>
          ))}
        </Menu.RadioGroup>
      </Menu.Dropdown>
    </Menu>
  );
}

function SessionLabel() {
  const { t } = useTranslation();
  const session = useQuery({
    queryKey: ['session'],
    queryFn: ({ signal }) => readSession(signal),
    staleTime: 60_000,
  });
  const name = session.data
    ? session.data.kind === 'local'
      ? t('session.local')
      : session.data.subject
    : session.isError
      ? t('session.unknown')
      : '…';
  return (
    <span className={classes.session} title={session.data?.subject}>
      <PersonIcon size={17} />
      <span className={classes.hidden}>{t('session.signedInAs')} </span>
      <span className={classes.sessionName}>{name}</span>
    </span>
  );
}

/** The frame around every page: skip link, header with the three portals, main content, footer. */
export function Layout() {
  const { t } = useTranslation();
  const pathname = useRouterState({ select: (state) => state.location.pathname });
  const main = useRef<HTMLElement>(null);
  const first = useRef(pathname);
  const inViewer = pathname.startsWith('/viewer/');

  // A change of page moves the focus to its content, as a full page load would (WCAG 2.4.3).
  useEffect(() => {
    if (first.current === pathname) return;
    first.current = '';
    main.current?.focus({ preventScroll: true });
  }, [pathname]);

  return (
    <div
      className={classes.shell}
      data-viewer={inViewer}
      data-fill={inViewer || portalOf(pathname) === 'collaborations'}
    >
      {/* biome-ignore lint/a11y/useValidAnchor: a link to the content of the page, which also takes the focus */}
      <a className={classes.skip} href="#content" onClick={() => main.current?.focus()}>
        {t('layout.skip')}
      </a>
      <header className={classes.header}>
        <Link to="/" className={classes.brand}>
          <Logo />
          <span className={classes.brandName}>BFR</span>
          <span className={classes.brandLong}>{t('layout.productName')}</span>
        </Link>
        <PortalLinks pathname={pathname} />
        <div className={classes.choices}>
          <LanguageSwitch />
          <SchemeMenu />
          <SessionLabel />
        </div>
      </header>
      <main id="content" ref={main} tabIndex={-1} className={classes.main}>
        <Outlet />
      </main>
      {!inViewer && (
        <footer className={classes.footer}>
          <span>{t('layout.intendedUse')}</span>
          <Link to="/tillganglighet">{t('accessibility.title')}</Link>
        </footer>
      )}
    </div>
  );
}
