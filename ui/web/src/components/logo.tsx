/** The mark of BFR: a pile of slices with a lens on the topmost. The name beside it is text. */
export function Logo({ size = 28 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" fill="none" aria-hidden="true">
      <path
        d="M5.5 20.6 16 26.4l10.5-5.8"
        stroke="var(--bfr-header-accent)"
        strokeOpacity="0.55"
        strokeWidth="2.2"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
      <path
        d="M5.5 15.6 16 21.4l10.5-5.8"
        stroke="var(--bfr-header-accent)"
        strokeWidth="2.2"
        strokeLinecap="round"
        strokeLinejoin="round"
      />
      <path d="M16 4.8 26.5 10.6 16 16.4 5.5 10.6Z" fill="var(--bfr-header-text)" />
      <circle cx="16" cy="10.6" r="2.4" fill="var(--bfr-header)" />
    </svg>
  );
}
