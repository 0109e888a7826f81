import { Button } from '@mantine/core';
import { useState } from 'react';
import { DocumentIcon, ReceivingIcon } from '../../components/icons';
import { ProblemNotice } from '../../components/notice';
import { PersonName, PersonNumber } from '../../components/person';
import { type MessageKey, useTranslation } from '../../i18n';
import type { Patient, Series, Study } from '../../lib/api';
import { type DicomDataset, readBulkData, textOf } from '../../lib/dicomweb';
import { clock, dicomDate } from '../../lib/format';
import { AttributeTree } from './attribute-tree';
import classes from './document-view.module.css';
import { ReportText } from './report-text';

const CONTENT_SEQUENCE = '0040A730';
const ENCAPSULATED_DOCUMENT = '00420011';
const MEDIA_TYPE = '00420012';
const DOCUMENT_TITLE = '00420010';

const SENTENCES: Record<string, MessageKey> = {
  SR: 'document.sr',
  KO: 'document.ko',
  PR: 'document.pr',
  SEG: 'document.seg',
  RTSTRUCT: 'document.rt',
  RTPLAN: 'document.rt',
  RTRECORD: 'document.rt',
  ECG: 'document.waveform',
  HD: 'document.waveform',
  EPS: 'document.waveform',
  REG: 'document.reg',
};

function sentenceOf(document: DicomDataset, modality: string): MessageKey {
  if (document[ENCAPSULATED_DOCUMENT]) return 'document.encapsulated';
  if (document['54000100']) return 'document.waveform';
  return SENTENCES[modality] ?? 'document.other';
}

interface DocumentViewProps {
  documents: DicomDataset[];
  patient: Patient;
  study: Study;
  series: Series;
}

/** What is no picture, as text: a sentence on what it is, its content, and all its attributes. */
export function DocumentView({ documents, patient, study, series }: DocumentViewProps) {
  const { t } = useTranslation();
  const [chosen, setChosen] = useState(0);
  const document = documents[Math.min(chosen, documents.length - 1)];
  if (!document) return <p className={classes.empty}>{t('document.empty')}</p>;
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a scrolling region must be reachable by keyboard (WCAG 2.1.1)
    <article className={classes.document} tabIndex={0} aria-label={t('document.label')}>
      <header className={classes.head}>
        <p>
          <PersonName value={patient.name} fallback={t('patient.nameMissing')} />{' '}
          <PersonNumber value={patient.patient_identifier} />
        </p>
        <p>
          {study.study_date ?? t('study.dateMissing')} {clock(study.study_time)}
        </p>
      </header>
      <p className={classes.sentence}>
        <DocumentIcon size={20} />
        <span>{t(sentenceOf(document, series.modality), { modality: series.modality })}</span>
      </p>
      {documents.length > 1 && (
        <label className={classes.choice}>
          {t('document.choose', { count: documents.length })}
          <select value={chosen} onChange={(event) => setChosen(Number(event.target.value))}>
            {documents.map((candidate, at) => (
              <option key={textOf(candidate, '00080018')} value={at}>
                {at + 1}: {dicomDate(textOf(candidate, '00080023'))}{' '}
                {textOf(candidate, '00420010') || textOf(candidate, '0008103E')}
              </option>
            ))}
          </select>
        </label>
      )}
      <EncapsulatedDocument key={`file ${chosen}`} document={document} />
      {document[CONTENT_SEQUENCE] && <ReportText document={document} />}
      <details
        className={classes.attributes}
        open={!document[CONTENT_SEQUENCE]}
        key={`tree ${chosen}`}
      >
        <summary>{t('document.attributes')}</summary>
        <AttributeTree dataset={document} />
      </details>
    </article>
  );
}

/** A way to save an encapsulated PDF or other file; nothing when there is none. */
function EncapsulatedDocument({ document }: { document: DicomDataset }) {
  const { t } = useTranslation();
  const [error, setError] = useState<unknown>(null);
  const [busy, setBusy] = useState(false);
  const attribute = document[ENCAPSULATED_DOCUMENT];
  const address = attribute?.BulkDataURI;
  const inline = attribute?.InlineBinary;
  if (!address && !inline) return null;
  const mediaType = textOf(document, MEDIA_TYPE) || 'application/octet-stream';

  const save = async () => {
    setBusy(true);
    setError(null);
    try {
      const bytes = address
        ? await readBulkData(address, mediaType)
        : Uint8Array.from(atob(inline ?? ''), (character) => character.charCodeAt(0));
      const file = URL.createObjectURL(new Blob([bytes], { type: mediaType }));
      const link = window.document.createElement('a');
      link.href = file;
      link.download = mediaType === 'application/pdf' ? 'dokument.pdf' : 'dokument';
      link.click();
      setTimeout(() => URL.revokeObjectURL(file), 10_000);
    } catch (failure) {
      setError(failure);
    } finally {
      setBusy(false);
    }
  };

  return (
    <div className={classes.file}>
      <p>
        <strong>{textOf(document, DOCUMENT_TITLE) || t('document.untitled')}</strong> ({mediaType})
      </p>
      <Button
        size="xs"
        loading={busy}
        leftSection={<ReceivingIcon size={14} />}
        onClick={() => void save()}
      >
        {t('document.save')}
      </Button>
      {error !== null && <ProblemNotice error={error} />}
    </div>
  );
}
