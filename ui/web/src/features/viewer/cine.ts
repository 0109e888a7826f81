import { useCallback, useEffect, useState } from 'react';
import type { StackView } from './stack-view';

const RATE_OF_STACKS = 10;

/** The frame to show after some seconds of film: frames are dropped, time is never slowed. */
export function frameAfter(start: number, seconds: number, rate: number, count: number): number {
  return count > 0 ? (start + Math.floor(seconds * rate)) % count : 0;
}

/** Plays the stack of a picture area; stops by itself when another series is shown. */
export function useCine(
  view: StackView | null,
  recommended: number | null,
  count: number,
  series: string,
) {
  const [playing, setPlaying] = useState<string | null>(null);
  const [chosen, setChosen] = useState<{ series: string; rate: number } | null>(null);
  const rate = chosen?.series === series ? chosen.rate : (recommended ?? RATE_OF_STACKS);
  const active = playing === series && count > 1 && view !== null;

  useEffect(() => {
    if (!active || !view) return;
    const start = view.index();
    const began = performance.now();
    let shown = start;
    let request = requestAnimationFrame(function play(now) {
      const index = frameAfter(start, (now - began) / 1000, rate, count);
      if (index !== shown) {
        shown = index;
        view.goTo(index);
      }
      request = requestAnimationFrame(play);
    });
    return () => cancelAnimationFrame(request);
  }, [active, view, rate, count]);

  const toggle = useCallback(() => setPlaying((now) => (now === series ? null : series)), [series]);
  const stop = useCallback(() => setPlaying(null), []);
  const setRate = useCallback((next: number) => setChosen({ series, rate: next }), [series]);
  return { playing: active, rate: count > 1 ? rate : null, toggle, stop, setRate };
}
