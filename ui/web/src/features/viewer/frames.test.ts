// @vitest-environment jsdom
import { expect, test } from 'vitest';
import type { DicomDataset } from '../../lib/dicomweb';
import { contentOf, lossOf, orientationOf } from './frames';

function picture(uid: string, more: DicomDataset = {}): DicomDataset {
  return {
    '00080018': { vr: 'UI', Value: [uid] },
    '00280010': { vr: 'US', Value: [64] },
    '00280011': { vr: 'US', Value: [64] },
    '00280100': { vr: 'US', Value: [16] },
    ...more,
  };
}

const report: DicomDataset = { '00080018': { vr: 'UI', Value: ['1.9'] } };

test('an instance of several frames gives one picture for each frame', () => {
  const film = picture('1.1', {
    '00280008': { vr: 'IS', Value: ['3'] },
    '00181063': { vr: 'DS', Value: [40] },
  });
  const content = contentOf([film], 'BFRDEMO', '1', '1.0');
  expect(content.frames.map((frame) => frame.imageId.split('/dicomweb')[1])).toEqual([
    '/studies/1/series/1.0/instances/1.1/frames/1',
    '/studies/1/series/1.0/instances/1.1/frames/2',
    '/studies/1/series/1.0/instances/1.1/frames/3',
  ]);
  expect(content.rate).toBe(25);
});

test('a report is a document, not a picture', () => {
  const content = contentOf([report, picture('1.1')], 'BFRDEMO', '1', '1.0');
  expect(content.documents).toEqual([report]);
  expect(content.frames).toHaveLength(1);
  expect(content.rate).toBeNull();
});

test('loss is told with its ratio, and only where there is loss', () => {
  expect(lossOf(picture('1'))).toBeNull();
  expect(lossOf(picture('1', { '00282110': { vr: 'CS', Value: ['00'] } }))).toBeNull();
  expect(
    lossOf(
      picture('1', {
        '00282110': { vr: 'CS', Value: ['01'] },
        '00282112': { vr: 'DS', Value: [9.96] },
      }),
    ),
  ).toBe('9.96:1');
});

test('the orientation of a frame is found in its functional groups', () => {
  const cosines = [1, 0, 0, 0, 0, -1];
  const enhanced = picture('1', {
    '52009229': {
      vr: 'SQ',
      Value: [{ '00209116': { vr: 'SQ', Value: [{ '00200037': { vr: 'DS', Value: cosines } }] } }],
    },
  });
  expect(orientationOf({ imageId: '', dataset: enhanced, frameNumber: 2 })).toEqual(cosines);
});
