import { Page } from '../components/page';
import { useTranslation } from '../i18n';
import classes from './accessibility-page.module.css';

export function AccessibilityPage() {
  const { t } = useTranslation();
  return (
    <Page title={t('accessibility.title')} lead={t('accessibility.lead')}>
      <div className={classes.text}>
        <h2>{t('accessibility.standard.heading')}</h2>
        <p>{t('accessibility.standard')}</p>
        <h2>{t('accessibility.works.heading')}</h2>
        <ul>
          <li>{t('accessibility.works.keyboard')}</li>
          <li>{t('accessibility.works.contrast')}</li>
          <li>{t('accessibility.works.announce')}</li>
          <li>{t('accessibility.works.reflow')}</li>
        </ul>
        <h2>{t('accessibility.gaps.heading')}</h2>
        <ul>
          <li>{t('accessibility.gaps.images')}</li>
          <li>{t('accessibility.gaps.measurements')}</li>
          <li>{t('accessibility.gaps.readers')}</li>
        </ul>
        <h2>{t('accessibility.contact.heading')}</h2>
        <p>{t('accessibility.contact')}</p>
      </div>
    </Page>
  );
}
