import { CloseButton, Kbd, Modal } from '@mantine/core';
import { useTranslation } from '../../i18n';
import classes from './shortcut-help.module.css';
import { HELP } from './shortcuts';

export function ShortcutHelp({ opened, onClose }: { opened: boolean; onClose: () => void }) {
  const { t } = useTranslation();
  return (
    <Modal.Root
      opened={opened}
      onClose={onClose}
      size="lg"
      lockScroll={false}
      transitionProps={{ duration: 0 }}
    >
      <Modal.Overlay />
      <Modal.Content>
        <Modal.Body>
          <div className={classes.head}>
            <Modal.Title className={classes.title}>{t('help.title')}</Modal.Title>
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
        </Modal.Body>
      </Modal.Content>
    </Modal.Root>
  );
}
