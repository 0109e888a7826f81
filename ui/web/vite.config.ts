import { fileURLToPath } from 'node:url';
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vitest/config';

const backend = process.env.BFR_BACKEND ?? 'http://localhost:8080';

export default defineConfig({
  plugins: [react()],
  resolve: {
    alias: {
      // vtk.js reads XML files with xmlbuilder2, which needs Node's `events`. No XML is read here.
      xmlbuilder2: fileURLToPath(new URL('./src/lib/no-xml.ts', import.meta.url)),
    },
  },
  worker: { format: 'es' },
  optimizeDeps: {
    exclude: ['@cornerstonejs/dicom-image-loader'],
    include: [
      'dicom-parser',
      'pako',
      '@cornerstonejs/codec-charls/decodewasmjs',
      '@cornerstonejs/codec-libjpeg-turbo-8bit/decodewasmjs',
      '@cornerstonejs/codec-openjpeg/decodewasmjs',
      '@cornerstonejs/codec-openjph/wasmjs',
      '@cornerstonejs/codec-libjxl/decodewasmjs',
    ],
  },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0,
    outDir: '../bfr_ui/static',
    emptyOutDir: true,
    // The viewer is one lazy chunk of about 4 MB; the shell stays below 0.5 MB.
    chunkSizeWarningLimit: 4500,
  },
  server: {
    proxy: { '/api': backend, '/archives': backend, '/dicomweb': backend },
  },
  test: {
    css: false,
    testTimeout: 30_000,
    // Rules are tested without a page, which takes longer to make than most tests to run.
    projects: [
      {
        extends: true,
        test: { name: 'rules', environment: 'node', include: ['src/**/*.test.ts'] },
      },
      {
        extends: true,
        test: {
          name: 'pages',
          environment: 'jsdom',
          include: ['src/**/*.test.tsx'],
          setupFiles: ['src/test-setup.ts'],
        },
      },
    ],
  },
});
