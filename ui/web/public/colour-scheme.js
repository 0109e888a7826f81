// Runs before the first paint, so that a dark room never gets a white flash.
(() => {
  let choice = 'auto';
  try {
    choice = localStorage.getItem('bfr-colour-scheme') ?? 'auto';
  } catch {
    // Storage is closed in some embedded browsers: follow the operating system.
  }
  const dark =
    choice === 'dark' || (choice !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.setAttribute('data-mantine-color-scheme', dark ? 'dark' : 'light');
})();
