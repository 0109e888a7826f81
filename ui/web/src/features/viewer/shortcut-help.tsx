import { CloseButton, Kbd, Modal } from '@mantine/core';
import { useTranslation } from '../../i18n';
import classes from './shortcut-help.module.css';
import { HELP } from './shortcuts';

export function ShortcutHelp({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const { t } = useTranslation();
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      aria-labelledby="shortcut-help"
      withCloseButton={false}
      size="lg"
      lockScroll={false}
      transitionProps={{ duration: 0 }}
    >
      <div className={classes.head}>
        <h2 id="shortcut-help">{t('help.title')}</h2>
        <CloseButton aria-label={t('help.close')} onClick={onClose} />
      </div>
      <p className={classes.note}>{t('help.focus')}</p>
      <dl className={classes.list}>
        {HELP.map(({ keys, text }) => (
          <div key={text} className={classes.line}>
            <dt>
              {keys.map((key) =>
                key === '–' ? (
                  <span key={key}>–</span>
                ) : (
                  <Kbd key={key}>{key === '␣' ? t('key.space') : key}</Kbd>
                ),
              )}
            </dt>
            <dd>{t(text)}</dd>
          </div>
        ))}
      </dl>
      <p className={classes.note}>{t('help.mouse')}</p>
    </Modal>
  );
}
