// Bundles the page for the browser, into the file that is named on the command line.
import { build } from 'esbuild';

await build({
  entryPoints: [new URL('page.jsx', import.meta.url).pathname],
  outfile: process.argv[2],
  alias: { 'react-custom-scrollbars-2': new URL('scrollbars.js', import.meta.url).pathname },
  bundle: true,
  jsx: 'automatic',
  logLevel: 'error',
  define: { 'process.env.NODE_ENV': '"production"', global: 'window' },
  loader: { '.ttf': 'dataurl' },
  minify: true,
});
